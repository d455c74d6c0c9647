// Diffuse and a soft highlight under a sky light, one shadowed spot light and one point light.
// SHADOWS: the spot light casts shadows. TWO_LIGHTS: shade once, light twice: the static and the live image of a
// surface that stands still differ only where the two shadow maps do. HOLES: the texture's alpha cuts.
in vec3 world_position;
in vec3 world_normal;
in vec2 surface_uv;
in vec3 surface_colour;

uniform sampler2D surface_texture;
uniform sampler2DShadow shadow_map;         // of the image; with TWO_LIGHTS of the static one
uniform sampler2DShadow live_shadow_map;
uniform vec4 changed_area;                  // of the maps (low x y, high x y): outside it they are equal
uniform mat4 shadow_clip_from_world;
uniform vec3 camera_position;
uniform vec3 sky_light;
uniform vec3 ground_light;
uniform vec3 spot_position;
uniform vec3 spot_direction;
uniform vec3 spot_light;
uniform vec2 spot_cosines;    // outer, inner
uniform vec3 fill_position;
uniform vec3 fill_light;
uniform float gloss;
uniform vec4 mark;            // one of: hands, actor, moved object, changed light
uniform uint instance_id;

layout(location = 0) out vec4 static_image;    // alpha 1: a moved object where the static video shows it
layout(location = 1) out vec4 live_image;
layout(location = 2) out vec4 marks;
layout(location = 3) out uint instance;

#ifdef SHADOWS
vec3 place_in_map(vec3 normal)
{
    vec4 clip = shadow_clip_from_world * vec4(world_position + normal * 0.006, 1.0);
    return clip.w <= 0.0 ? vec3(1.0) : clip.xyz / clip.w * 0.5 + 0.5;
}

float unshadowed_share(sampler2DShadow map, vec3 place)
{
    if (place.z >= 1.0) return 1.0;
    vec2 texel = 0.9 / vec2(textureSize(map, 0));
    float sum = 0.0;
    for (int row = -1; row <= 1; row += 2)
        for (int column = -1; column <= 1; column += 2)
            sum += texture(map, vec3(place.xy + texel * vec2(column, row), place.z - 0.0006));
    return sum * 0.25;
}
#endif

float highlight(vec3 normal, vec3 to_camera, vec3 to_light)
{
    float facing = max(dot(normal, normalize(to_light + to_camera)), 0.0);
    return gloss * exp2(40.0 * (facing - 1.0));
}

vec3 toned(vec3 light) { return sqrt(light / (1.0 + 0.15 * light)); }

void main()
{
    vec4 texel = texture(surface_texture, surface_uv);
#ifdef HOLES
    if (texel.a < 0.5) discard;
#endif
    vec3 to_camera = normalize(camera_position - world_position);
    vec3 normal = normalize(world_normal);
    if (dot(normal, to_camera) < 0.0) normal = -normal;
    vec3 albedo = surface_colour * texel.rgb * texel.rgb;    // squares stand in for the sRGB curve

    vec3 light = albedo * mix(ground_light, sky_light, 0.5 + 0.5 * normal.y);
    vec3 to_fill = fill_position - world_position;
    float fill_squared = dot(to_fill, to_fill);
    to_fill *= inversesqrt(fill_squared);
    light += fill_light * (max(dot(normal, to_fill), 0.0) / fill_squared)
        * (albedo + vec3(highlight(normal, to_camera, to_fill)));

    vec3 to_spot = spot_position - world_position;
    float spot_squared = dot(to_spot, to_spot);
    to_spot *= inversesqrt(spot_squared);
    float facing = max(dot(normal, to_spot), 0.0);
    float cone = smoothstep(spot_cosines.x, spot_cosines.y, -dot(spot_direction, to_spot));
    vec3 spot = spot_light * (facing * cone / spot_squared) * (albedo + vec3(highlight(normal, to_camera, to_spot)));

    float share = 1.0;
#ifdef SHADOWS
    vec3 place = vec3(1.0);
    if (facing * cone > 0.0) {
        place = place_in_map(normal);
        share = unshadowed_share(shadow_map, place);
    }
#endif
    static_image = vec4(toned(light + share * spot), mark.b);
    live_image = static_image;
    marks = mark;
#ifdef TWO_LIGHTS
    if (all(greaterThan(place.xy, changed_area.xy)) && all(lessThan(place.xy, changed_area.zw))) {
        float live_share = unshadowed_share(live_shadow_map, place);
        if (live_share != share) {
            live_image = vec4(toned(light + live_share * spot), 1.0);
            marks.a = 1.0;
        }
    }
#endif
    instance = instance_id;
}
