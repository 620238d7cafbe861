// Heatmaps: softmax, soft-argmax, spread and mode in one pass, and the joints' Gaussians as features.

// Logits [3, points, batch, bins] to probabilities [batch, points, 3, bins], and for each heatmap the expectation of
// the bin's index (soft-argmax), the standard deviation around it, and the likeliest bin. A warp each; at most 256 bins.
KERNEL(256) heatmaps(const float* logits, float* probabilities, float* coords, float* spread, u32* mode,
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
        mode[row] = (u32)first;
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
