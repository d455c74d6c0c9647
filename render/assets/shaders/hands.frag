// Headlight shading of hand meshes in the camera's frame: ambient 0.7, diffuse 0.6, no highlight.
in vec3 world_position;
in vec3 world_normal;
in vec3 surface_colour;

uniform uint instance_id;

layout(location = 1) out vec4 live_image;
layout(location = 2) out vec4 marks;
layout(location = 3) out uint instance;

void main()
{
    float facing = abs(dot(normalize(world_normal), normalize(world_position)));
    live_image = vec4(min(surface_colour * (0.7 + 0.6 * facing), 1.0), 1.0);
    marks = vec4(1.0, 0.0, 0.0, 0.0);
    instance = instance_id;
}
