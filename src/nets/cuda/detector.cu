// Mask R-CNN between its convolutions: the best anchors of each level, suppression, RoIAlign, scores. The decisions are
// those of rpn.rs, nms.rs, roi_align.rs and box_head.rs, in the same order of operations: compiled without contraction
// of products and sums.

#define LEVELS 5
#define BINS 2048
#define MOST 1024 // candidates of a level, threads of a block

KERNEL(256) clear(u32* x, i64 count) {
    i64 i = thread_number();
    if (i < count) x[i] = 0u;
}

// The score of each anchor as a number in the same order, [batch, total], and how many of a level have the same upper
// 11 bits, [batch, LEVELS, BINS]. `x` is the level's map [batch, positions, padded], its anchors are numbered
// position * 3 + aspect. grid (parts, batch).
KERNEL(256) rank_anchors(const elem* x, u32* keys, u32* histograms, int level, int anchors, int padded,
                                        int offset, int total) {
    __shared__ u32 bins[BINS];
    for (int i = (int)threadIdx.x; i < BINS; i += (int)blockDim.x) bins[i] = 0u;
    __syncthreads();
    i64 image = blockIdx.y;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < anchors; i += (int)(gridDim.x * blockDim.x)) {
        u32 key = ordered(load(x[(image * (anchors / 3) + i / 3) * padded + i % 3]));
        keys[image * total + offset + i] = key;
        atomicAdd(&bins[key >> 21], 1u);
    }
    __syncthreads();
    u32* histogram = histograms + (image * LEVELS + level) * BINS;
    for (int i = (int)threadIdx.x; i < BINS; i += (int)blockDim.x)
        if (bins[i]) atomicAdd(&histogram[i], bins[i]);
}

// Sum over this thread and those before it; a block of MOST threads, all of which must come here.
__device__ __forceinline__ int inclusive_scan(int x, int* scratch) {
    int t = (int)threadIdx.x;
    __syncthreads();
    scratch[t] = x;
    for (int step = 1; step < MOST; step *= 2) {
        __syncthreads();
        int before = t >= step ? scratch[t - step] : 0;
        __syncthreads();
        scratch[t] += before;
    }
    __syncthreads();
    return scratch[t];
}

// The bin in which the `need` largest end, counted from the last bin; `need` becomes what is needed of that bin, `held`
// what is in it. A block of MOST threads; `found` holds three numbers.
__device__ __forceinline__ int threshold_bin(const u32* bins, int* need, int* held, int* scratch, int* found) {
    int t = (int)threadIdx.x;
    int high = (int)bins[BINS - 1 - 2 * t], low = (int)bins[BINS - 2 - 2 * t];
    int before = inclusive_scan(high + low, scratch) - high - low;
    if (before < *need && before + high >= *need) {
        found[0] = BINS - 1 - 2 * t;
        found[1] = *need - before;
        found[2] = high;
    } else if (before + high < *need && before + high + low >= *need) {
        found[0] = BINS - 2 - 2 * t;
        found[1] = *need - before - high;
        found[2] = low;
    }
    __syncthreads();
    *need = found[1];
    *held = found[2];
    int bin = found[0];
    __syncthreads();
    return bin;
}

// Largest first (bitonic); a block of MOST threads, all of which must come here.
__device__ __forceinline__ void sort_descending(u64* x) {
    int t = (int)threadIdx.x;
    for (int run = 2; run <= MOST; run *= 2) {
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            int other = t ^ step;
            if (other > t) {
                u64 a = x[t], b = x[other];
                bool descending = (t & run) == 0;
                if (descending ? a < b : a > b) {
                    x[t] = b;
                    x[other] = a;
                }
            }
        }
    }
    __syncthreads();
}

// Moves and stretches a box by `delta` (boxes.rs: `decode` and `clip`).
__device__ __forceinline__ void decode(const float* box, const float* delta, const float* weights, float height,
                                       float width, float* out) {
    const float most = 4.1351665f; // ln(1000 / 16)
    float w = box[2] - box[0], h = box[3] - box[1];
    float cx = box[0] + 0.5f * w, cy = box[1] + 0.5f * h;
    float dw = fminf(delta[2] / weights[2], most), dh = fminf(delta[3] / weights[3], most);
    cx = delta[0] / weights[0] * w + cx;
    cy = delta[1] / weights[1] * h + cy;
    float half_w = 0.5f * (expf(dw) * w), half_h = 0.5f * (expf(dh) * h);
    out[0] = fminf(fmaxf(cx - half_w, 0.0f), width);
    out[1] = fminf(fmaxf(cy - half_h, 0.0f), height);
    out[2] = fminf(fmaxf(cx + half_w, 0.0f), width);
    out[3] = fminf(fmaxf(cy + half_h, 0.0f), height);
}

// The `limit` best anchors of each level (equal scores: the first in their order), corrected and clipped; those with
// sides are written, best first: boxes [batch, LEVELS, capacity, 4], scores, counts [batch, LEVELS]. `table` tells for
// each level: first key, anchors, columns, pixels between rows, pixels between columns; `cells` its three anchors
// around the origin. `equals` is memory for [batch, total]. grid (LEVELS, batch), MOST threads.
KERNEL(1024) select_anchors(const u32* keys, const u32* histograms, const int* table, const float* cells,
                                          const elem* d0, const elem* d1, const elem* d2, const elem* d3,
                                          const elem* d4, int padded, u64* equals, float* boxes, float* scores,
                                          int* counts, int total, int limit, int capacity, float height, float width,
                                          float min_side) {
    __shared__ u32 bins[BINS];
    __shared__ u64 chosen[MOST];
    __shared__ int scratch[MOST];
    __shared__ int found[3];
    __shared__ int chosen_count, equal_count;
    const u64 last = 0x3fffffull; // an anchor's number has 22 bits
    int t = (int)threadIdx.x, level = (int)blockIdx.x;
    i64 image = blockIdx.y, group = image * LEVELS + level;
    const int* facts = table + level * 5;
    int offset = facts[0], anchors = facts[1];
    const u32* mine = keys + image * total + offset;
    u64* equal = equals + image * total + offset;
    int need = min(limit, anchors), held = 0;
    int wanted = need;
    chosen[t] = 0ull;
    if (t == 0) chosen_count = equal_count = 0;
    for (int i = t; i < BINS; i += MOST) bins[i] = histograms[group * BINS + i];
    __syncthreads();
    int bin = threshold_bin(bins, &need, &held, scratch, found);
    // A score and its anchor in one number, larger for the better: all are different.
    for (int i = t; i < anchors; i += MOST) {
        u32 key = mine[i];
        int upper = (int)(key >> 21);
        u64 whole = ((u64)key << 22) | (last - (u64)i);
        if (upper > bin) chosen[atomicAdd(&chosen_count, 1)] = whole;
        if (upper == bin) equal[atomicAdd(&equal_count, 1)] = whole;
    }
    __syncthreads();
    int count = equal_count;
    u64 prefix = (u64)bin;
    int shift = 43; // of the digit that `prefix` ends with
    while (need < held) {
        int next = shift >= 11 ? shift - 11 : 0;
        u64 mask = (1ull << (shift - next)) - 1ull;
        for (int i = t; i < BINS; i += MOST) bins[i] = 0u;
        __syncthreads();
        for (int i = t; i < count; i += MOST)
            if (equal[i] >> shift == prefix) atomicAdd(&bins[(int)((equal[i] >> next) & mask)], 1u);
        __syncthreads();
        bin = threshold_bin(bins, &need, &held, scratch, found);
        for (int i = t; i < count; i += MOST) {
            u64 whole = equal[i];
            if (whole >> shift == prefix && (int)((whole >> next) & mask) > bin)
                chosen[atomicAdd(&chosen_count, 1)] = whole;
        }
        prefix = (prefix << (shift - next)) | (u64)bin;
        shift = next;
        __syncthreads();
    }
    for (int i = t; i < count; i += MOST)
        if (equal[i] >> shift == prefix) chosen[atomicAdd(&chosen_count, 1)] = equal[i];
    sort_descending(chosen);
    float box[4] = {0.0f, 0.0f, 0.0f, 0.0f}, score = 0.0f;
    int keep = 0;
    if (t < wanted) {
        u64 whole = chosen[t];
        int index = (int)(last - (whole & last));
        u32 key = (u32)(whole >> 22);
        float logit = __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
        int aspect = index % 3, position = index / 3;
        float y = (float)(position / facts[2] * facts[3]), x = (float)(position % facts[2] * facts[4]);
        const float* cell = cells + (level * 3 + aspect) * 4;
        float anchor[4] = {cell[0] + x, cell[1] + y, cell[2] + x, cell[3] + y};
        const elem* map = level == 0 ? d0 : level == 1 ? d1 : level == 2 ? d2 : level == 3 ? d3 : d4;
        const elem* at = map + (image * (anchors / 3) + position) * padded + aspect * 4;
        float delta[4] = {load(at[0]), load(at[1]), load(at[2]), load(at[3])};
        const float one[4] = {1.0f, 1.0f, 1.0f, 1.0f};
        decode(anchor, delta, one, height, width, box);
        keep = box[2] - box[0] >= min_side && box[3] - box[1] >= min_side && logit == logit;
        score = 1.0f / (1.0f + expf(-logit));
    }
    int place = inclusive_scan(keep, scratch) - 1;
    if (keep) {
        i64 slot = group * capacity + place;
        for (int i = 0; i < 4; i++) boxes[slot * 4 + i] = box[i];
        scores[slot] = score;
    }
    if (t == MOST - 1) counts[group] = place + 1;
}

__device__ __forceinline__ float overlap(const float* a, const float* b) {
    float w = fmaxf(fminf(a[2], b[2]) - fmaxf(a[0], b[0]), 0.0f);
    float h = fmaxf(fminf(a[3], b[3]) - fmaxf(a[1], b[1]), 0.0f);
    float both = w * h;
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

// Which of the later boxes of its group each box overlaps by more than the threshold, a bit each:
// [groups, capacity, words]. grid (words, words, groups), 64 threads.
KERNEL(256) find_overlaps(const float* boxes, const int* counts, u64* overlaps, int capacity, int words,
                                         float threshold) {
    i64 group = blockIdx.z;
    int row = (int)(blockIdx.y * 64 + threadIdx.x), first = (int)blockIdx.x * 64, count = counts[group];
    if (row >= count || blockIdx.x < blockIdx.y) return;
    const float* mine = boxes + group * capacity * 4;
    u64 bits = 0ull;
    for (int k = 0; k < 64; k++) {
        int other = first + k;
        if (other > row && other < count && overlap(mine + row * 4, mine + other * 4) > threshold) bits |= 1ull << k;
    }
    overlaps[(group * capacity + row) * words + blockIdx.x] = bits;
}

// The boxes that stay, in their order: a box goes when it overlaps a better one that stays. Boxes, scores and counts
// are written again, packed. grid (groups), MOST threads; at most 16 words.
KERNEL(1024) suppress(const float* boxes, const float* scores, const int* counts, const u64* overlaps,
                                    float* kept_boxes, float* kept_scores, int* kept_counts, int capacity, int words) {
    __shared__ u64 gone[16];
    __shared__ u64 kept[16];
    __shared__ u64 diagonal[64];
    i64 group = blockIdx.x;
    int t = (int)threadIdx.x, count = counts[group];
    const u64* mine = overlaps + group * capacity * words;
    if (t < 16) gone[t] = kept[t] = 0ull;
    __syncthreads();
    for (int word = 0; word * 64 < count; word++) {
        int first = word * 64;
        if (t < 64) diagonal[t] = first + t < count ? mine[(i64)(first + t) * words + word] : 0ull;
        __syncthreads();
        if (t == 0) {
            u64 out = gone[word], in = 0ull;
            for (int k = 0; k < 64 && first + k < count; k++) {
                if (!((out >> k) & 1ull)) {
                    in |= 1ull << k;
                    out |= diagonal[k];
                }
            }
            kept[word] = in;
        }
        __syncthreads();
        int row = t / 16, later = t % 16;
        if (later > word && later < words && ((kept[word] >> row) & 1ull))
            atomicOr(&gone[later], mine[(i64)(first + row) * words + later]);
        __syncthreads();
    }
    if (t < count && ((kept[t / 64] >> (t % 64)) & 1ull)) {
        int place = __popcll(kept[t / 64] & ((1ull << (t % 64)) - 1ull));
        for (int word = 0; word < t / 64; word++) place += __popcll(kept[word]);
        i64 from = group * capacity + t, to = group * capacity + place;
        for (int i = 0; i < 4; i++) kept_boxes[to * 4 + i] = boxes[from * 4 + i];
        kept_scores[to] = scores[from];
    }
    if (t == 0) {
        int all = 0;
        for (int word = 0; word < 16; word++) all += __popcll(kept[word]);
        kept_counts[group] = all;
    }
}

// How many of a descending list are larger than `score`, or as large where `ties`.
__device__ __forceinline__ int count_better(const float* scores, int count, float score, bool ties) {
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (scores[middle] > score || (ties && scores[middle] == score)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// The best `limit` of several lists (levels, or labels), equal scores in the order of the lists: boxes
// [batch, limit, 4], zeros past the last, how many there are, and where `merged_scores` is wanted, score and list of
// each. grid (parts, batch), one thread for each of lists * capacity.
KERNEL(256) merge_lists(const float* boxes, const float* scores, const int* counts, float* merged, int* merged_counts,
                                       float* merged_scores, int* merged_lists, int lists, int capacity, int limit) {
    i64 i = thread_number(), image = blockIdx.y;
    const int* count = counts + image * lists;
    int all = 0;
    for (int list = 0; list < lists; list++) all += count[list];
    float* out = merged + image * limit * 4;
    if (i == 0) merged_counts[image] = min(all, limit);
    if (i >= all && i < limit)
        for (int k = 0; k < 4; k++) out[i * 4 + k] = 0.0f;
    int mine = (int)(i / capacity), place = (int)(i % capacity);
    if (mine >= lists || place >= count[mine]) return;
    const float* all_scores = scores + image * lists * capacity;
    float score = all_scores[mine * capacity + place];
    int rank = place;
    for (int list = 0; list < lists; list++)
        if (list != mine) rank += count_better(all_scores + list * capacity, count[list], score, list < mine);
    if (rank >= limit) return;
    const float* box = boxes + ((image * lists + mine) * capacity + place) * 4;
    for (int k = 0; k < 4; k++) out[(i64)rank * 4 + k] = box[k];
    if (merged_scores) {
        merged_scores[image * limit + rank] = score;
        merged_lists[image * limit + rank] = mine;
    }
}

// The pixel before a sample, the one after it and the latter's weight; false beyond the map (roi_align.rs: `bin_taps`).
__device__ __forceinline__ bool sample(float at, int size, int* low, int* high, float* part) {
    if (!(at >= -1.0f && at <= (float)size)) return false;
    at = fmaxf(at, 0.0f);
    int first = (int)at;
    bool end = first >= size - 1;
    *low = end ? size - 1 : first;
    *high = end ? size - 1 : first + 1;
    *part = end ? 0.0f : at - (float)first;
    return true;
}

// RoIAlign: regions [regions, 4] of pictures of `per_image` regions each, read from the level that their size belongs
// to: [regions, side, side, padded]. A block for each bin.
KERNEL(256) roi_align(const elem* p0, const elem* p1, const elem* p2, const elem* p3, int h0, int h1,
                                     int h2, int h3, int w0, int w1, int w2, int w3, float finest_scale,
                                     const float* regions, elem* y, int per_image, int side, int padded) {
    int bin = (int)blockIdx.x % (side * side);
    i64 region = blockIdx.x / (side * side);
    const float* box = regions + region * 4;
    float extent = sqrtf((box[2] - box[0]) * (box[3] - box[1]));
    float wanted = floorf(4.0f + log2f(extent / 224.0f) + 1e-6f) + log2f(finest_scale);
    // What is not a number is read from the finest.
    int level = wanted >= 3.0f ? 3 : wanted >= 2.0f ? 2 : wanted >= 1.0f ? 1 : 0;
    const elem* map = level == 0 ? p0 : level == 1 ? p1 : level == 2 ? p2 : p3;
    int height = level == 0 ? h0 : level == 1 ? h1 : level == 2 ? h2 : h3;
    int width = level == 0 ? w0 : level == 1 ? w1 : level == 2 ? w2 : w3;
    float scale = level == 0 ? finest_scale : level == 1 ? finest_scale * 0.5f : level == 2 ? finest_scale * 0.25f
                                                                                           : finest_scale * 0.125f;
    map += region / per_image * height * width * padded;
    float x0 = box[0] * scale, y0 = box[1] * scale;
    float bin_w = fmaxf(box[2] * scale - x0, 1.0f) / (float)side, bin_h = fmaxf(box[3] * scale - y0, 1.0f) / (float)side;
    int rows[4], columns[4];
    float row_weights[4], column_weights[4];
    for (int s = 0; s < 2; s++) {
        float down = y0 + (float)(bin / side) * bin_h + ((float)s + 0.5f) * bin_h / 2.0f;
        float across = x0 + (float)(bin % side) * bin_w + ((float)s + 0.5f) * bin_w / 2.0f;
        float part = 0.0f;
        rows[2 * s] = rows[2 * s + 1] = columns[2 * s] = columns[2 * s + 1] = 0;
        bool inside = sample(down, height, &rows[2 * s], &rows[2 * s + 1], &part);
        row_weights[2 * s] = inside ? 0.5f * (1.0f - part) : 0.0f;
        row_weights[2 * s + 1] = inside ? 0.5f * part : 0.0f;
        part = 0.0f;
        inside = sample(across, width, &columns[2 * s], &columns[2 * s + 1], &part);
        column_weights[2 * s] = inside ? 0.5f * (1.0f - part) : 0.0f;
        column_weights[2 * s + 1] = inside ? 0.5f * part : 0.0f;
    }
    for (int c = (int)threadIdx.x; c < padded; c += (int)blockDim.x) {
        float sum = 0.0f;
        for (int v = 0; v < 4; v++)
            for (int u = 0; u < 4; u++)
                sum = fmaf(row_weights[v] * column_weights[u],
                           load(map[((i64)rows[v] * width + columns[u]) * padded + c]), sum);
        y[(i64)blockIdx.x * padded + c] = store(sum);
    }
}

// What each region is: softmax over the classes, and the corrected and clipped box of each wanted label:
// [regions, labels, 5] (box, score). The biases are added here. A warp for each region.
KERNEL(256) score_regions(const float* logits, const float* logit_bias, const float* deltas,
                                         const float* delta_bias, const float* regions, const int* labels, float* y,
                                         int classes, int logit_stride, int delta_stride, int label_count, float height,
                                         float width, i64 count) {
    i64 region = thread_number() / 32;
    int lane = (int)threadIdx.x % 32;
    i64 at = region < count ? region : 0;
    const float* x = logits + at * logit_stride;
    float most = LOWEST;
    for (int c = lane; c < classes; c += 32) most = fmaxf(most, x[c] + logit_bias[c]);
    most = warp_max(most);
    float total = 0.0f;
    for (int c = lane; c < classes; c += 32) total += expf(x[c] + logit_bias[c] - most);
    total = warp_sum(total);
    if (region >= count) return;
    for (int k = lane; k < label_count; k += 32) {
        int label = labels[k];
        float delta[4];
        for (int i = 0; i < 4; i++) delta[i] = deltas[at * delta_stride + label * 4 + i] + delta_bias[label * 4 + i];
        const float weights[4] = {10.0f, 10.0f, 5.0f, 5.0f};
        float* out = y + (region * label_count + k) * 5;
        decode(regions + region * 4, delta, weights, height, width, out);
        out[4] = expf(x[label] + logit_bias[label] - most) / total;
    }
}

// The regions that may show an object of each wanted label, best first, equal scores in the order of the regions:
// those whose score is above the threshold and whose box has sides. `found` is what `score_regions` wrote,
// [batch, regions, labels, 5], of which the first `region_counts` of each picture count; at most MOST regions. Boxes
// [batch, labels, capacity, 4], scores, counts. grid (labels, batch), MOST threads.
KERNEL(1024) rank_regions(const float* found, const int* region_counts, float* boxes, float* scores, int* counts,
                                         int regions, int capacity, float threshold, float min_side) {
    __shared__ u64 chosen[MOST];
    __shared__ int scratch[MOST];
    int t = (int)threadIdx.x, label = (int)blockIdx.x, labels = (int)gridDim.x;
    i64 image = blockIdx.y, group = image * labels + label;
    const float* mine = found + (image * regions * labels + label) * 5;
    int keep = 0;
    chosen[t] = 0ull;
    if (t < min(regions, region_counts[image])) {
        const float* row = mine + (i64)t * labels * 5;
        keep = row[4] > threshold && row[2] - row[0] >= min_side && row[3] - row[1] >= min_side;
        // A score and its region in one number, larger for the better and never 0.
        if (keep) chosen[t] = ((u64)ordered(row[4]) << 32) | (u64)(MOST - t);
    }
    int count = inclusive_scan(keep, scratch);
    if (t == MOST - 1) counts[group] = count;
    sort_descending(chosen);
    if (chosen[t]) {
        const float* row = mine + (i64)(MOST - (int)(chosen[t] & 0xffffffffull)) * labels * 5;
        i64 slot = group * capacity + t;
        for (int i = 0; i < 4; i++) boxes[slot * 4 + i] = row[i];
        scores[slot] = row[4];
    }
}
