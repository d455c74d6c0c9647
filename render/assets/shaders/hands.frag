#version 330 core
// Headlight shading of hand meshes in the camera's frame: ambient 0.7, diffuse 0.6, no highlight.
in vec3 world_position;
in vec3 world_normal;
in vec2 surface_uv;
in vec3 surface_colour;

uniform uint instance_id;

layout(location = 0) out vec4 image;
layout(location = 1) out uvec4 facts;

void main()
{
    float facing = abs(dot(normalize(world_normal), normalize(world_position)));
    image = vec4(min(surface_colour * (0.7 + 0.6 * facing), 1.0), 1.0);
    facts = uvec4(instance_id, 0u, 0u, 0u);
}
