#version 330 core
// Diffuse and a soft highlight under a sky light, one shadowed spot light and one point light.
in vec3 world_position;
in vec3 world_normal;
in vec2 surface_uv;
in vec3 surface_colour;

uniform sampler2D surface_texture;
uniform sampler2DShadow shadow_map;
uniform mat4 shadow_clip_from_world;
uniform vec3 camera_position;
uniform vec3 camera_forward;
uniform vec3 sky_light;
uniform vec3 ground_light;
uniform vec3 spot_position;
uniform vec3 spot_direction;
uniform vec3 spot_light;
uniform vec2 spot_cosines;    // outer, inner
uniform vec3 fill_position;
uniform vec3 fill_light;
uniform float gloss;
uniform uint instance_id;

layout(location = 0) out vec4 image;
layout(location = 1) out uvec4 facts;    // instance, bits of the unshadowed share, bits of the depth, unused

float unshadowed_share(vec3 normal)
{
    vec4 clip = shadow_clip_from_world * vec4(world_position + normal * 0.006, 1.0);
    vec3 place = clip.xyz / clip.w * 0.5 + 0.5;
    if (place.z >= 1.0 || clip.w <= 0.0) return 1.0;
    vec2 texel = 1.3 / vec2(textureSize(shadow_map, 0));
    float sum = 0.0;
    for (int row = -1; row <= 1; row++)
        for (int column = -1; column <= 1; column++)
            sum += texture(shadow_map, vec3(place.xy + texel * vec2(column, row), place.z - 0.0006));
    return sum / 9.0;
}

vec3 reflected(vec3 albedo, vec3 normal, vec3 to_camera, vec3 to_light)
{
    float facing = max(dot(normal, to_light), 0.0);
    float highlight = max(dot(normal, normalize(to_light + to_camera)), 0.0);
    return facing * (albedo + vec3(gloss * exp2(40.0 * (highlight - 1.0))));
}

void main()
{
    vec3 to_camera = normalize(camera_position - world_position);
    vec3 normal = normalize(world_normal);
    if (dot(normal, to_camera) < 0.0) normal = -normal;
    vec3 texel = texture(surface_texture, surface_uv).rgb;
    vec3 albedo = surface_colour * texel * texel;    // squares stand in for the sRGB curve

    vec3 light = albedo * mix(ground_light, sky_light, 0.5 + 0.5 * normal.y);
    vec3 to_spot = spot_position - world_position;
    float spot_distance = length(to_spot);
    to_spot /= spot_distance;
    float cone = smoothstep(spot_cosines.x, spot_cosines.y, -dot(spot_direction, to_spot));
    float share = unshadowed_share(normal);
    light += spot_light * (share * cone / (spot_distance * spot_distance)) * reflected(albedo, normal, to_camera, to_spot);
    vec3 to_fill = fill_position - world_position;
    light += fill_light / dot(to_fill, to_fill) * reflected(albedo, normal, to_camera, normalize(to_fill));

    image = vec4(sqrt(light / (1.0 + 0.15 * light)), 1.0);
    float depth = dot(world_position - camera_position, camera_forward);
    facts = uvec4(instance_id, floatBitsToUint(share), floatBitsToUint(depth), 0u);
}
