"""The GLSL of render.py. Colours are linear inside, and leave as sRGB, premultiplied by coverage."""

VERTEX = """
#version 330
uniform mat4 to_clip; uniform mat3 head; uniform mat3 chest; uniform vec3 pivot; uniform vec3 place;
in vec3 position; in vec3 normal; in vec2 uv; in float bend; in float light;
out vec3 at; out vec3 facing; out vec2 coord; out float reached; out vec3 local;
void main() {
    vec3 offset = position - pivot;
    at = mix(chest * offset, head * offset, bend) + place;
    facing = mix(chest * normal, head * normal, bend);
    coord = uv; reached = light; local = position;
    gl_Position = to_clip * vec4(at, 1.0);
}
"""

# The shadow pass: only alpha matters.
DEPTH_FRAGMENT = """
#version 330
uniform sampler2D image;
in vec2 coord;
void main() { if (texture(image, coord).a < 0.5) discard; }
"""

FRAGMENT = """
#version 330
#define SKIN 0
#define EYE 1
#define HAIR 2
#define PLAIN 3
#define GLASS 4
#define TEETH 5
uniform sampler2D image; uniform sampler2DShadow shadow_map;
uniform mat4 to_light; uniform vec3 light_direction[3]; uniform vec3 light_colour[3];
uniform vec3 sky; uniform vec3 ground; uniform vec3 tint;
uniform float gloss; uniform float exposure; uniform float opacity; uniform int material; uniform bool two_sided;
in vec3 at; in vec3 facing; in vec2 coord; in float reached; in vec3 local;
out vec4 colour;

float sunlit(vec3 normal) {
    vec3 seen = (to_light * vec4(at + 0.03 * normal, 1.0)).xyz * 0.5 + 0.5;
    float bias = 0.006, step = 1.0 / 256.0, sum = 0.0;
    sum += texture(shadow_map, vec3(seen.xy + vec2(-step, -0.4 * step), seen.z - bias));
    sum += texture(shadow_map, vec3(seen.xy + vec2(step, -0.4 * step), seen.z - bias));
    sum += texture(shadow_map, vec3(seen.x, seen.y + step, seen.z - bias));
    return sum / 3.0;
}

void main() {
    vec4 texel = texture(image, coord);
    float alpha = texel.a * opacity;
    if (material == GLASS) { if (alpha < 0.02) discard; }
    // half-transparent hair: so many of the samples, scattered without pattern
    else if (alpha < 0.15 + 0.7 * fract(52.98 * fract(dot(gl_FragCoord.xy, vec2(0.06711056, 0.00583715))))) discard;
    vec3 albedo = texel.rgb * texel.rgb * tint;  // gamma 2 is near enough to sRGB, and cheap
    vec3 normal = normalize(facing), eye = normalize(-at);
    if (two_sided && dot(normal, eye) < 0.0) normal = -normal;
    if (material == SKIN) {  // pores and wrinkles of the texture bend the normal
        float grey = dot(texel.rgb, vec3(0.33));
        vec3 dx = dFdx(at), dy = dFdy(at);
        vec3 slope = dFdx(grey) * cross(dy, normal) + dFdy(grey) * cross(normal, dx);
        float area = max(abs(dot(dx, cross(dy, normal))), 1e-7);
        normal = normalize(normal - clamp(length(slope) / area, 0.0, 12.0) * 0.035 * normalize(slope + 1e-9));
    }
    // red light travels furthest under the skin: it wraps around the terminator
    vec3 wrap = material == SKIN ? vec3(0.32, 0.18, 0.14) : (material == HAIR ? vec3(0.35) : vec3(0.1));
    float power = material == EYE ? 180.0 : (material == HAIR ? 18.0 : mix(12.0, 60.0, gloss));
    float strength = material == EYE ? 1.0 : (material == HAIR ? 0.12 : (material == TEETH ? 0.35 : 0.30 * gloss));
    vec3 diffuse = mix(ground, sky, normal.y * 0.5 + 0.5) * reached, shine = vec3(0.0);
    float shadow = sunlit(normal);
    for (int i = 0; i < 3; ++i) {
        float lit = i == 0 ? shadow : reached;
        float cosine = dot(normal, light_direction[i]);
        vec3 soft = max((cosine + wrap) / (1.0 + wrap), 0.0);
        vec3 leaked = i == 0 ? mix(vec3(lit), vec3(1.0), 0.25 * wrap) : vec3(lit);
        diffuse += light_colour[i] * soft * leaked * (0.4 + 0.6 * reached);
        vec3 half_way = normalize(light_direction[i] + eye);
        float grazing = 1.0 - max(dot(half_way, eye), 0.0);
        float fresnel = 0.35 + 0.65 * grazing * grazing * grazing;
        // exp2 of a parabola is Blinn's power of the cosine, and cheaper
        float lobe = exp2(power * 1.4427 * (max(dot(normal, half_way), 0.0) - 1.0));
        shine += light_colour[i] * (lit * step(0.0, cosine) * strength * fresnel * lobe * (power + 8.0) * 0.08);
    }
    float rim = 1.0 - max(dot(normal, eye), 0.0); rim *= rim * rim;
    if (material == SKIN) shine += sky * rim * 0.12 * gloss * reached;
    if (material == EYE) shine += sky * 0.05 * reached;
    if (material == GLASS) { shine += sky * (0.05 + 0.5 * rim); alpha = clamp(alpha + 0.35 * rim, 0.0, 1.0); }
    vec3 linear = (albedo * diffuse + shine * (material == SKIN || material == EYE ? reached : 1.0)) * exposure;
    vec3 shown = sqrt(clamp(linear / (1.0 + 0.18 * max(linear - 0.35, 0.0)), 0.0, 1.0));
    colour = vec4(shown, material == GLASS ? alpha : 1.0);
}
"""
