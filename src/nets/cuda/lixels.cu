// Heatmaps: softmax, soft-argmax, spread and mode in one pass, and the joints' Gaussians as features.

// Logits [3, points, batch, bins] to probabilities [batch, points, 3, bins], and for each heatmap the expectation of
// the bin's index (soft-argmax), the standard deviation around it, and the likeliest bin. A warp each; at most 256 bins.
KERNEL(256) heatmaps(const float* logits, float* probabilities, float* coords, float* spread, float* mode,
                                    int points, int batch, int bins, i64 rows) {
    i64 row = thread_number() / 32;
    int lane = (int)threadIdx.x % 32;
    bool active = row < rows;
    i64 at = active ? row : 0;
    int axis = (int)(at % 3);
    i64 point = at / 3 % points, person = at / 3 / points;
    const float* x = logits + ((axis * (i64)points + point) * batch + person) * bins;
    float value[8];
    float most = LOWEST;
    for (int k = 0; k < 8; k++) {
        int bin = k * 32 + lane;
        value[k] = bin < bins ? x[bin] : LOWEST;
        most = fmaxf(most, value[k]);
    }
    most = warp_max(most);
    float total = 0.0f, weighted = 0.0f, first = (float)bins;
    for (int k = 0; k < 8; k++) {
        int bin = k * 32 + lane;
        if (bin >= bins) continue;
        if (value[k] == most) first = fminf(first, (float)bin);
        value[k] = expf(value[k] - most);
        total += value[k];
        weighted = fmaf(value[k], (float)bin, weighted);
    }
    total = warp_sum(total);
    float mean = warp_sum(weighted) / total;
    float squares = 0.0f;
    for (int k = 0; k < 8; k++) {
        int bin = k * 32 + lane;
        if (bin >= bins) continue;
        float p = value[k] / total, offset = (float)bin - mean;
        squares = fmaf(p * offset, offset, squares);
        if (active) probabilities[row * bins + bin] = p;
    }
    squares = warp_sum(squares);
    first = -warp_max(-first);
    if (active && lane == 0) {
        coords[row] = mean;
        spread[row] = sqrtf(squares);
        mode[row] = first;
    }
}

// Softmax over a plane of `side` x `side` logits f32, and the expected x and y: [batch, 2]. A block of 256 each.
KERNEL(256) plane_heatmap(const float* logits, float* probabilities, float* coords, int side) {
    __shared__ float scratch[256];
    int bins = side * side;
    const float* x = logits + (i64)blockIdx.x * bins;
    float* p = probabilities + (i64)blockIdx.x * bins;
    float most = LOWEST;
    for (int i = (int)threadIdx.x; i < bins; i += 256) most = fmaxf(most, x[i]);
    most = block_max(most, scratch);
    float total = 0.0f, along_x = 0.0f, along_y = 0.0f;
    for (int i = (int)threadIdx.x; i < bins; i += 256) {
        float value = expf(x[i] - most);
        total += value;
        along_x = fmaf(value, (float)(i % side), along_x);
        along_y = fmaf(value, (float)(i / side), along_y);
    }
    total = block_sum(total, scratch);
    along_x = block_sum(along_x, scratch);
    along_y = block_sum(along_y, scratch);
    for (int i = (int)threadIdx.x; i < bins; i += 256) p[i] = expf(x[i] - most) / total;
    if (threadIdx.x == 0) {
        coords[blockIdx.x * 2] = along_x / total;
        coords[blockIdx.x * 2 + 1] = along_y / total;
    }
}

// 3D heatmaps, first pass. Logits are [images, bins (y), bins (x), stride] f32, of which a joint has `bins` (z) side by
// side; the bias [joints * bins] is added here. For each row of each volume: its largest logit, the sum of all
// exp(logit - largest), the same sum for each x, then for each z: [images, joints, bins (y), 2 + 2 * bins].
// grid (bins (y), joints, images), 256 threads; at most 256 bins.
KERNEL(256) volume_rows(const float* logits, const float* bias, float* rows, int bins, int stride) {
    __shared__ float scratch[256];
    __shared__ float over_x[8 * 256]; // of each warp, for each z
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int joint = (int)blockIdx.y, joints = (int)gridDim.y;
    i64 row = (i64)blockIdx.z * bins + blockIdx.x, line = ((i64)blockIdx.z * joints + joint) * bins + blockIdx.x;
    const float* x = logits + row * bins * stride + joint * bins;
    const float* b = bias + joint * bins;
    float* out = rows + line * (2 + 2 * bins);
    float most = LOWEST;
    for (int column = warp; column < bins; column += 8)
        for (int z = lane; z < bins; z += 32) most = fmaxf(most, x[(i64)column * stride + z] + b[z]);
    most = block_max(most, scratch);
    float sums[8], total = 0.0f;
    for (int k = 0; k < 8; k++) sums[k] = 0.0f;
    // All warps go as far as the last one: they meet where lanes exchange numbers.
    for (int first = 0; first < bins; first += 8) {
        int column = first + warp;
        float sum = 0.0f;
        for (int k = 0; k < 8; k++) {
            int z = k * 32 + lane;
            if (column >= bins || z >= bins) continue;
            float p = expf(x[(i64)column * stride + z] + b[z] - most);
            sums[k] += p;
            sum += p;
        }
        sum = warp_sum(sum);
        if (column < bins && lane == 0) out[2 + column] = sum;
        total += sum;
    }
    for (int k = 0; k < 8; k++) over_x[warp * 256 + k * 32 + lane] = sums[k];
    total = block_sum(lane == 0 ? total : 0.0f, scratch);
    for (int z = (int)threadIdx.x; z < bins; z += (int)blockDim.x) {
        float sum = 0.0f;
        for (int w = 0; w < 8; w++) sum += over_x[w * 256 + z];
        out[2 + bins + z] = sum;
    }
    if (threadIdx.x == 0) {
        out[0] = most;
        out[1] = total;
    }
}

// 3D heatmaps, second pass: the marginals of each joint's softmax along x, y and z, [people, joints, 3, bins], and what
// `heatmaps` reads from such rows. With `mirrored` (for each joint the one that takes its place in a mirror) there are
// twice as many images as people: those of the second half show the people mirrored, and the mean of both is told.
// grid (3, joints, people), 256 threads; at most 256 bins.
KERNEL(256) volume_heatmaps(const float* rows, const int* mirrored, float* probabilities, float* coords, float* spread,
                                           float* mode, int bins) {
    __shared__ float scratch[256];
    __shared__ float factors[256]; // of each row, from its own largest logit to the volume's
    int t = (int)threadIdx.x, axis = (int)blockIdx.x, joint = (int)blockIdx.y, joints = (int)gridDim.y;
    int width = 2 + 2 * bins, views = mirrored ? 2 : 1;
    bool active = t < bins;
    float p = 0.0f;
    for (int view = 0; view < views; view++) {
        i64 image = (i64)view * gridDim.z + blockIdx.z;
        const float* x = rows + (image * joints + (view ? mirrored[joint] : joint)) * bins * width;
        float most = active ? x[t * width] : LOWEST;
        float factor = expf(most - block_max(most, scratch));
        float along_y = active ? factor * x[t * width + 1] : 0.0f;
        factors[t] = factor;
        float total = block_sum(along_y, scratch);
        float marginal = along_y;
        if (active && axis != 1) {
            const float* at = x + (axis == 2 ? 2 + bins + t : view ? 1 + bins - t : 2 + t);
            marginal = 0.0f;
            for (int y = 0; y < bins; y++) marginal = fmaf(factors[y], at[y * width], marginal);
        }
        p += marginal / total;
    }
    p /= (float)views;
    float mean = block_sum(active ? p * (float)t : 0.0f, scratch);
    float offset = (float)t - mean;
    float squares = block_sum(active ? p * offset * offset : 0.0f, scratch);
    float likeliest = block_max(active ? p : LOWEST, scratch);
    float first = -block_max(active && p == likeliest ? -(float)t : -(float)bins, scratch);
    i64 row = ((i64)blockIdx.z * joints + joint) * 3 + axis;
    if (active) probabilities[row * bins + t] = p;
    if (t == 0) {
        coords[row] = mean;
        spread[row] = sqrtf(squares);
        mode[row] = first;
    }
}

__device__ __forceinline__ float gaussian(float bin, float at, float sigma) {
    float offset = (bin - at) / sigma;
    return expf(offset * offset * -0.5f);
}

// Same, 0 outside of the heatmap.
__device__ __forceinline__ float gaussian_within(int bin, int bins, float at, float sigma) {
    return bin >= 0 && bin < bins ? gaussian((float)bin, at, sigma) : 0.0f;
}

// pose2feat, first product: weights [joints, bins, columns] contracted with each joint's Gaussian over z. A block for
// each joint and person: -> [batch, joints, columns].
KERNEL(256) gaussians_over_z(const float* weights, const float* coords, float* y, int joints, int bins,
                                            int columns, float sigma) {
    __shared__ float factors[256];
    int joint = (int)blockIdx.x, person = (int)blockIdx.y;
    float at = coords[((i64)person * joints + joint) * 3 + 2];
    for (int z = (int)threadIdx.x; z < bins; z += (int)blockDim.x) factors[z] = gaussian((float)z, at, sigma);
    __syncthreads();
    const float* w = weights + (i64)joint * bins * columns;
    for (int column = (int)threadIdx.x; column < columns; column += (int)blockDim.x) {
        float sum = 0.0f;
        for (int z = 0; z < bins; z++) sum = fmaf(w[(i64)z * columns + column], factors[z], sum);
        y[((i64)person * joints + joint) * columns + column] = sum;
    }
}

// pose2feat, second and third product: over y, then over x and the joints. `over_z` is [batch, joints, channels (o),
// 3 (dx), 3 (dy)]; y is [batch, bins (y), bins (x), padded]. A block of 256 threads for each row and person, 64 columns
// and 64 channels.
KERNEL(256) gaussians_over_plane(const float* over_z, const float* coords, elem* y, int joints,
                                                int bins, int channels, int padded, float sigma) {
    DYNAMIC_SHARED(float, shared);
    float* over_y = shared;                    // [joints * 3 (dx), 64]
    float* along_x = shared + joints * 3 * 64; // [joints, 66]: Gaussians from one column before to one after
    int row = (int)blockIdx.x, person = (int)blockIdx.y, parts = (bins + 63) / 64;
    int first = (int)blockIdx.z % parts * 64, first_channel = (int)blockIdx.z / parts * 64;
    const float* at = coords + (i64)person * joints * 3;
    for (int i = (int)threadIdx.x; i < joints * 66; i += 256)
        along_x[i] = gaussian_within(first + i % 66 - 1, bins, at[i / 66 * 3], sigma);
    for (int i = (int)threadIdx.x; i < joints * 3 * 64; i += 256) {
        int o = first_channel + i % 64, dx = i / 64 % 3, joint = i / 192;
        const float* w = over_z + ((((i64)person * joints + joint) * channels + o) * 3 + dx) * 3;
        float sum = 0.0f;
        for (int dy = 0; dy < 3 && o < channels; dy++)
            sum = fmaf(w[dy], gaussian_within(row + dy - 1, bins, at[joint * 3 + 1], sigma), sum);
        over_y[i] = sum;
    }
    __syncthreads();
    int o = (int)threadIdx.x % 64, group = (int)threadIdx.x / 64 * 16;
    float sums[16];
    for (int k = 0; k < 16; k++) sums[k] = 0.0f;
    for (int i = 0; i < joints * 3; i++) {
        float w = over_y[i * 64 + o];
        const float* g = along_x + i / 3 * 66 + group + i % 3;
        for (int k = 0; k < 16; k++) sums[k] = fmaf(w, g[k], sums[k]);
    }
    for (int k = 0; k < 16; k++) {
        int column = first + group + k;
        if (column < bins && first_channel + o < padded)
            y[(((i64)person * bins + row) * bins + column) * padded + first_channel + o] = store(sums[k]);
    }
}
