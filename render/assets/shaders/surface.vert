layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 texture_position;
layout(location = 3) in vec4 colour;

uniform mat4 world_from_object;
uniform mat3 world_normal_from_object;
uniform mat4 clip_from_world;

out vec3 world_position;
out vec3 world_normal;
out vec2 surface_uv;
out vec3 surface_colour;

void main()
{
    vec4 world = world_from_object * vec4(position, 1.0);
    world_position = world.xyz;
    world_normal = world_normal_from_object * normal;
    surface_uv = texture_position;
    surface_colour = colour.rgb;
    gl_Position = clip_from_world * world;
}
