// The layers' own kernels. Maps are [batch, height, width, padded channels]; weights [output, ky, kx, input], both
// numbers of channels padded.

// What follows a convolution, in place: bias, residual, ReLU.
KERNEL(256) finish(elem* y, const float* bias, const elem* residual, int has_residual, int padded,
                                  int relu, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    float value = load(y[i]) + bias[(int)(i % padded)];
    if (has_residual) value += load(residual[i]);
    if (relu) value = fmaxf(value, 0.0f);
    y[i] = store(value);
}

// The convolution by its definition, with everything that follows it: the way that is always open.
KERNEL(256) direct_conv(const elem* x, const elem* weight, const float* bias, const elem* residual,
                                       int has_residual, elem* y, int height, int width, int input, int out_height,
                                       int out_width, int output, int kernel, int stride, int padding, int relu,
                                       i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int o = (int)(i % output);
    i64 at = i / output;
    int ox = (int)(at % out_width);
    at /= out_width;
    int oy = (int)(at % out_height);
    i64 image = at / out_height;
    float sum = 0.0f;
    for (int ky = 0; ky < kernel; ky++) {
        int iy = oy * stride - padding + ky;
        if (iy < 0 || iy >= height) continue;
        for (int kx = 0; kx < kernel; kx++) {
            int ix = ox * stride - padding + kx;
            if (ix < 0 || ix >= width) continue;
            const elem* pixel = x + ((image * height + iy) * width + ix) * input;
            const elem* w = weight + (((i64)o * kernel + ky) * kernel + kx) * input;
            for (int c = 0; c < input; c++) sum = fmaf(load(pixel[c]), load(w[c]), sum);
        }
    }
    sum += bias[o];
    if (has_residual) sum += load(residual[i]);
    y[i] = store(relu ? fmaxf(sum, 0.0f) : sum);
}

// d[batch][m][n] = sum_k a[batch][m][k] * b[batch][n][k]; by its definition, as above. `wide`: d is f32.
KERNEL(256) direct_product(const elem* a, const elem* b, const float* bias, int has_bias, elem* d,
                                          float* wide_d, int wide, int n, int k, i64 rows, int relu, i64 stride_b,
                                          i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int column = (int)(i % n);
    i64 row = i / n;
    const elem* x = a + row * k;
    const elem* w = b + row / rows * stride_b + (i64)column * k;
    float sum = 0.0f;
    for (int c = 0; c < k; c++) sum = fmaf(load(x[c]), load(w[c]), sum);
    if (has_bias) sum += bias[column];
    if (relu) sum = fmaxf(sum, 0.0f);
    if (wide) {
        wide_d[i] = sum;
    } else {
        d[i] = store(sum);
    }
}

// What the taps of a kernel meet, side by side: [pixel, ky, kx, channels], `units` quads of channels. With `phases`,
// those of the four 2x2 kernels that a transposed convolution with kernel 4, stride 2 and padding 1 consists of, one
// after the other: output pixel (2 m + py) meets inputs m + py - 1 and m + py.
KERNEL(256) gather_taps(const Quad* x, Quad* y, int height, int width, int out_height, int out_width,
                                       int kernel, int stride, int padding, int units, int phases, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int phase = phases ? (int)blockIdx.y : 0;
    int pad_y = phases ? 1 - phase / 2 : padding, pad_x = phases ? 1 - phase % 2 : padding;
    int unit = (int)(i % units);
    i64 at = i / units;
    int kx = (int)(at % kernel);
    at /= kernel;
    int ky = (int)(at % kernel);
    at /= kernel;
    int ox = (int)(at % out_width);
    at /= out_width;
    int oy = (int)(at % out_height);
    i64 image = at / out_height;
    int iy = oy * stride - pad_y + ky, ix = ox * stride - pad_x + kx;
    Quad value = {0u, 0u, 0u, 0u};
    if (iy >= 0 && ix >= 0 && iy < height && ix < width) value = x[((image * height + iy) * width + ix) * units + unit];
    y[phase * count + i] = value;
}

// The four phases of a transposed convolution, [4, batch, height, width, units], put together: [batch, 2 height,
// 2 width, units].
KERNEL(256) join_phases(const Quad* x, Quad* y, int height, int width, int units, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int unit = (int)(i % units);
    i64 at = i / units;
    int ox = (int)(at % (2 * width));
    at /= 2 * width;
    int oy = (int)(at % (2 * height));
    i64 image = at / (2 * height);
    i64 phase = oy % 2 * 2 + ox % 2;
    i64 pixel = (image * height + oy / 2) * width + ox / 2;
    y[i] = x[(phase * (count / 4 / units) + pixel) * units + unit];
}

// Max-pool; what lies outside does not count.
KERNEL(256) max_pool(const elem* x, elem* y, int height, int width, int out_height, int out_width,
                                    int padded, int kernel, int stride, int padding, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int c = (int)(i % padded);
    i64 at = i / padded;
    int ox = (int)(at % out_width);
    at /= out_width;
    int oy = (int)(at % out_height);
    i64 image = at / out_height;
    float most = LOWEST;
    for (int ky = 0; ky < kernel; ky++) {
        int iy = oy * stride - padding + ky;
        if (iy < 0 || iy >= height) continue;
        for (int kx = 0; kx < kernel; kx++) {
            int ix = ox * stride - padding + kx;
            if (ix < 0 || ix >= width) continue;
            most = fmaxf(most, load(x[((image * height + iy) * width + ix) * padded + c]));
        }
    }
    y[i] = store(most);
}

// Every pixel becomes a square of four.
KERNEL(256) doubled(const Quad* x, Quad* y, int height, int width, int units, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int unit = (int)(i % units);
    i64 at = i / units;
    int ox = (int)(at % (2 * width));
    at /= 2 * width;
    int oy = (int)(at % (2 * height));
    i64 image = at / (2 * height);
    y[i] = x[((image * height + oy / 2) * width + ox / 2) * units + unit];
}

// A map twice, the second time mirrored left to right: [images, height, width] to [2 * images, height, width].
KERNEL(256) and_mirrored(const Quad* x, Quad* y, int width, int units, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    i64 pixel = i / units;
    int column = (int)(pixel % width);
    Quad value = x[i];
    y[i] = value;
    y[count + i + (i64)(width - 1 - 2 * column) * units] = value;
}

// Means of a square map [batch, side, side, padded] over its rows (for each column) and over its columns (for each
// row): [2, batch, side, padded].
KERNEL(256) line_means(const elem* x, elem* y, int side, int padded, i64 count) {
    i64 i = thread_number();
    if (i >= 2 * count) return;
    bool over_columns = i >= count;
    i64 at = over_columns ? i - count : i;
    int c = (int)(at % padded);
    i64 line = at / padded;
    int position = (int)(line % side);
    i64 image = line / side;
    i64 first = over_columns ? (i64)position * side : position, step = over_columns ? 1 : side;
    const elem* from = x + (image * side * side + first) * padded + c;
    float sum = 0.0f;
    for (int k = 0; k < side; k++) sum += load(from[k * step * padded]);
    y[i] = store(sum / (float)side);
}

// Mean of each channel: [batch, pixels, padded] -> [batch, padded].
KERNEL(256) channel_means(const elem* x, elem* y, int pixels, int padded, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int c = (int)(i % padded);
    const elem* from = x + i / padded * pixels * padded + c;
    float sum = 0.0f;
    for (int k = 0; k < pixels; k++) sum += load(from[(i64)k * padded]);
    y[i] = store(sum / (float)pixels);
}

// One number from the channels of each pixel, in f32: [rows, padded] * weight [padded] + bias -> [rows]. A warp each.
KERNEL(256) dot_channels(const elem* x, const float* weight, float bias, float* y, int padded, i64 rows) {
    i64 row = thread_number() / 32;
    int lane = (int)threadIdx.x % 32;
    float sum = 0.0f;
    if (row < rows) {
        for (int c = lane; c < padded; c += 32) sum = fmaf(load(x[row * padded + c]), weight[c], sum);
    }
    sum = warp_sum(sum);
    if (row < rows && lane == 0) y[row] = sum + bias;
}

// The same from the mean over the pixels: [batch, pixels, padded] -> [batch]. A block each.
KERNEL(256) dot_means(const elem* x, const float* weight, float bias, float* y, int pixels, int padded) {
    __shared__ float scratch[256];
    i64 image = blockIdx.x;
    float sum = 0.0f;
    for (int c = (int)threadIdx.x; c < padded; c += (int)blockDim.x) {
        float total = 0.0f;
        for (int k = 0; k < pixels; k++) total += load(x[(image * pixels + k) * padded + c]);
        sum = fmaf(total / (float)pixels, weight[c], sum);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) y[image] = sum + bias;
}
