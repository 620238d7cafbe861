// The losses of a mesh's face normals and edge lengths (twin of ops/surface.rs). Meshes are [people, vertices, 3].

// Added to squared lengths, so that an edge without length has a gradient of 0 and not of 0 times infinity.
#define TINY 1e-24f
// A shorter edge has no direction worth learning from.
#define SHORTEST 1e-3f

struct Vec3 {
    float x, y, z;
};
__device__ __forceinline__ Vec3 vertex_at(const float* mesh, int vertex) {
    const float* at = mesh + (i64)vertex * 3;
    return {at[0], at[1], at[2]};
}
__device__ __forceinline__ Vec3 plus(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
__device__ __forceinline__ Vec3 minus(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
__device__ __forceinline__ Vec3 times(Vec3 a, float s) { return {a.x * s, a.y * s, a.z * s}; }
__device__ __forceinline__ float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
__device__ __forceinline__ float length(Vec3 a) { return sqrtf(dot(a, a) + TINY); }
__device__ __forceinline__ Vec3 unit(Vec3 a) { return times(a, 1.0f / length(a)); }
__device__ __forceinline__ Vec3 cross(Vec3 a, Vec3 b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
__device__ __forceinline__ float sign(float x) { return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f; }

// What is wanted of a face of one person.
struct Wanted {
    Vec3 normal;
    Vec3 corners[3];
    float valid[3];
};
__device__ __forceinline__ Wanted wanted_of(const float* target, const float* valid, const int* face) {
    Wanted wanted;
    for (int i = 0; i < 3; i++) {
        wanted.corners[i] = vertex_at(target, face[i]);
        wanted.valid[i] = valid[face[i]];
    }
    Vec3 ab = unit(minus(wanted.corners[1], wanted.corners[0])), ac = unit(minus(wanted.corners[2], wanted.corners[0]));
    wanted.normal = unit(cross(ab, ac));
    return wanted;
}

// Sums over the edges of all faces of a person, [people, 2]: of the cosines' sizes, and of the lengths' differences. A
// block each. `faces` is [face_count, 3].
KERNEL(256) surface_sums(const float* output, const float* target, const float* valid, const int* faces, float* sums,
                         int vertices, int face_count) {
    __shared__ float scratch[256];
    i64 person = blockIdx.x;
    output += person * vertices * 3;
    target += person * vertices * 3;
    valid += person * vertices;
    float cosines = 0.0f, lengths = 0.0f;
    for (int f = (int)threadIdx.x; f < face_count; f += (int)blockDim.x) {
        const int* face = faces + 3 * f;
        Wanted wanted = wanted_of(target, valid, face);
        float face_counts = wanted.valid[0] * wanted.valid[1] * wanted.valid[2];
        for (int edge = 0; edge < 3; edge++) {
            int from = edge / 2, to = edge == 0 ? 1 : 2;
            Vec3 along = minus(vertex_at(output, face[to]), vertex_at(output, face[from]));
            float size = length(along), wanted_length = length(minus(wanted.corners[to], wanted.corners[from]));
            cosines += fabsf(dot(along, wanted.normal) / fmaxf(size, SHORTEST)) * face_counts;
            lengths += fabsf(size - wanted_length) * (wanted.valid[from] * wanted.valid[to]);
        }
    }
    cosines = block_sum(cosines, scratch);
    lengths = block_sum(lengths, scratch);
    if (threadIdx.x != 0) return;
    sums[2 * person] = cosines;
    sums[2 * person + 1] = lengths;
}

// The gradient of each vertex, from those of its person's sums. `starts` says for each vertex, and once more at the end,
// where its corners begin in `corners`, the numbers 3 * face + corner that are this vertex. `count` is people * vertices.
KERNEL(256) surface_gradient(const float* output, const float* target, const float* valid, const int* faces,
                             const int* starts, const int* corners, const float* grad, float* dx, int vertices,
                             int count) {
    int i = (int)thread_number();
    if (i >= count) return;
    i64 person = i / vertices;
    int vertex = i % vertices;
    output += person * vertices * 3;
    target += person * vertices * 3;
    valid += person * vertices;
    Vec3 sum = {0.0f, 0.0f, 0.0f};
    for (int at = starts[vertex]; at < starts[vertex + 1]; at++) {
        const int* face = faces + corners[at] / 3 * 3;
        int own = corners[at] % 3;
        Wanted wanted = wanted_of(target, valid, face);
        float normal = grad[2 * person] * (wanted.valid[0] * wanted.valid[1] * wanted.valid[2]);
        for (int edge = 0; edge < 3; edge++) {
            int from = edge / 2, to = edge == 0 ? 1 : 2;
            if (own != from && own != to) continue;
            Vec3 along = minus(vertex_at(output, face[to]), vertex_at(output, face[from]));
            float size = length(along), cosine = dot(along, wanted.normal) / fmaxf(size, SHORTEST);
            Vec3 by_edge = size < SHORTEST
                               ? times(wanted.normal, 1.0f / SHORTEST)
                               : times(minus(wanted.normal, times(along, cosine / size)), 1.0f / size);
            by_edge = times(by_edge, sign(cosine) * normal);
            float off = size - length(minus(wanted.corners[to], wanted.corners[from]));
            float pull = sign(off) / size * (grad[2 * person + 1] * (wanted.valid[from] * wanted.valid[to]));
            by_edge = plus(by_edge, times(along, pull));
            sum = own == to ? plus(sum, by_edge) : minus(sum, by_edge);
        }
    }
    float* to = dx + (i64)i * 3;
    to[0] = sum.x;
    to[1] = sum.y;
    to[2] = sum.z;
}
