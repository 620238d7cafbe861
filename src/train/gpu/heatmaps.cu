// From planes to 1D heatmaps, from heatmaps to places, and what is wrong with them. A line is the logits of one point
// along one axis, `bins` side by side.

// Means of square planes over their rows (the line along x) and over their columns (that along y): [2, planes, side].
// `count` is planes * side.
KERNEL(256) axis_means(const float* x, float* y, int side, int count) {
    i64 i = thread_number();
    if (i >= 2 * (i64)count) return;
    bool along_y = i >= count;
    i64 at = along_y ? i - count : i;
    i64 place = at % side;
    const float* from = x + at / side * side * side + (along_y ? place * side : place);
    int step = along_y ? 1 : side;
    float sum = 0.0f;
    for (int k = 0; k < side; k++) sum += from[(i64)k * step];
    y[i] = sum / (float)side;
}
// `count` is that of the planes' numbers.
KERNEL(256) axis_means_gradient(const float* grad, float* dx, int side, int count) {
    int i = (int)thread_number();
    if (i >= count) return;
    int column = i % side, row = i / side % side, plane = i / side / side;
    dx[i] = (grad[plane * side + column] + grad[count / side + plane * side + row]) / (float)side;
}

// A warp's line.
struct Line {
    i64 at;
    int lane;
    // The last warps may have none.
    bool is_there;
    const float* logits;
    // Greatest logit, and the sum of the exponentials of what the others are below it.
    float most, total;
};

__device__ __forceinline__ Line read_line(const float* logits, int bins, int lines) {
    Line line;
    line.at = thread_number() / 32;
    line.lane = (int)threadIdx.x % 32;
    line.is_there = line.at < lines;
    line.logits = logits + (line.is_there ? line.at * bins : 0);
    float m = LOWEST, sum = 0.0f;
    if (line.is_there) {
        for (int bin = line.lane; bin < bins; bin += 32) m = fmaxf(m, line.logits[bin]);
    }
    m = warp_max(m);
    if (line.is_there) {
        for (int bin = line.lane; bin < bins; bin += 32) sum += expf(line.logits[bin] - m);
    }
    line.most = m;
    line.total = warp_sum(sum);
    return line;
}

// The expected bin of each line, a warp each.
KERNEL(256) soft_argmax(const float* logits, float* coords, int bins, int lines) {
    Line line = read_line(logits, bins, lines);
    float sum = 0.0f;
    if (line.is_there) {
        for (int bin = line.lane; bin < bins; bin += 32) sum += expf(line.logits[bin] - line.most) * (float)bin;
    }
    sum = warp_sum(sum);
    if (line.is_there && line.lane == 0) coords[line.at] = sum / line.total;
}
KERNEL(256) soft_argmax_gradient(const float* logits, const float* coords, const float* grad, float* dx, int bins,
                                 int lines) {
    Line line = read_line(logits, bins, lines);
    if (!line.is_there) return;
    for (int bin = line.lane; bin < bins; bin += 32) {
        float share = expf(line.logits[bin] - line.most) / line.total;
        dx[line.at * bins + bin] = grad[line.at] * share * ((float)bin - coords[line.at]);
    }
}

// Where a target lies between bins; `false` where it does not count.
__device__ __forceinline__ bool target_bins(float target, int bins, int* low, float* high_share) {
    if (!(target >= 0.0f && target <= (float)(bins - 1))) return false;
    *low = min((int)target, bins - 2);
    *high_share = target - (float)*low;
    return true;
}

// Cross-entropy of each line with the two bins beside its target, 0 where the target does not count. A warp each.
KERNEL(256) line_entropy(const float* logits, const float* targets, float* losses, int bins, int lines) {
    Line line = read_line(logits, bins, lines);
    if (!line.is_there || line.lane != 0) return;
    int low;
    float share, loss = 0.0f;
    if (target_bins(targets[line.at], bins, &low, &share)) {
        loss = logf(line.total) + line.most - (1.0f - share) * line.logits[low] - share * line.logits[low + 1];
    }
    losses[line.at] = loss;
}
KERNEL(256) line_entropy_gradient(const float* logits, const float* targets, const float* grad, float* dx, int bins,
                                  int lines) {
    Line line = read_line(logits, bins, lines);
    if (!line.is_there) return;
    int low = 0;
    float share = 0.0f;
    bool counts = target_bins(targets[line.at], bins, &low, &share);
    for (int bin = line.lane; bin < bins; bin += 32) {
        float wanted = bin == low ? 1.0f - share : bin == low + 1 ? share : 0.0f;
        float has = expf(line.logits[bin] - line.most) / line.total;
        dx[line.at * bins + bin] = counts ? grad[line.at] * (has - wanted) : 0.0f;
    }
}

// A block's cube: greatest logit, and the sum of the exponentials of what the others are below it.
__device__ __forceinline__ void volume_scale(const float* cube, int cells, float* scratch, float* most, float* total) {
    float m = LOWEST, sum = 0.0f;
    for (int i = (int)threadIdx.x; i < cells; i += (int)blockDim.x) m = fmaxf(m, cube[i]);
    m = block_max(m, scratch);
    for (int i = (int)threadIdx.x; i < cells; i += (int)blockDim.x) sum += expf(cube[i] - m);
    *most = m;
    *total = block_sum(sum, scratch);
}

// The expected cell of each cube of logits, [z, y, x], x first; a block each.
KERNEL(256) volume_soft_argmax(const float* logits, float* coords, int depth) {
    __shared__ float scratch[256];
    int cells = depth * depth * depth;
    const float* cube = logits + (i64)blockIdx.x * cells;
    float most, total, x = 0.0f, y = 0.0f, z = 0.0f;
    volume_scale(cube, cells, scratch, &most, &total);
    for (int i = (int)threadIdx.x; i < cells; i += (int)blockDim.x) {
        float p = expf(cube[i] - most) / total;
        x += p * (float)(i % depth);
        y += p * (float)(i / depth % depth);
        z += p * (float)(i / depth / depth);
    }
    x = block_sum(x, scratch);
    y = block_sum(y, scratch);
    z = block_sum(z, scratch);
    if (threadIdx.x != 0) return;
    float* to = coords + (i64)blockIdx.x * 3;
    to[0] = x;
    to[1] = y;
    to[2] = z;
}
KERNEL(256) volume_soft_argmax_gradient(const float* logits, const float* coords, const float* grad, float* dx,
                                        int depth) {
    __shared__ float scratch[256];
    int cells = depth * depth * depth;
    i64 first = (i64)blockIdx.x * cells;
    const float* mean = coords + (i64)blockIdx.x * 3;
    const float* slope = grad + (i64)blockIdx.x * 3;
    float most, total;
    volume_scale(logits + first, cells, scratch, &most, &total);
    for (int i = (int)threadIdx.x; i < cells; i += (int)blockDim.x) {
        float along = slope[0] * ((float)(i % depth) - mean[0]) + slope[1] * ((float)(i / depth % depth) - mean[1]) +
                      slope[2] * ((float)(i / depth / depth) - mean[2]);
        dx[first + i] = expf(logits[first + i] - most) / total * along;
    }
}
