// The layers that are trained, where no library has them: batch norm with a residual and ReLU, max-pooling, biases.
// Maps are planes, [image, channel, pixel]; there are fewer than 2^31 numbers in each.

// Mean of each plane and the sum of the squared distances from it, a warp each: [planes, 2].
KERNEL(256) plane_moments(const float* x, float* moments, int pixels, int planes) {
    i64 plane = thread_number() / 32;
    int lane = (int)threadIdx.x % 32;
    bool is_plane = plane < planes;
    const float* from = x + (is_plane ? plane * pixels : 0);
    float sum = 0.0f, squares = 0.0f;
    if (is_plane) {
        for (int i = lane; i < pixels; i += 32) sum += from[i];
    }
    float mean = warp_sum(sum) / (float)pixels;
    if (is_plane) {
        for (int i = lane; i < pixels; i += 32) squares += (from[i] - mean) * (from[i] - mean);
    }
    squares = warp_sum(squares);
    if (is_plane && lane == 0) {
        moments[2 * plane] = mean;
        moments[2 * plane + 1] = squares;
    }
}

// What a norm knows of a channel, [4, channels]: mean, one by the standard deviation, and the factor and the summand
// that both make of an input.
__device__ __forceinline__ void know_channel(float* known, int c, int channels, float mean, float variance, float eps,
                                             float weight, float bias) {
    float inverse_std = 1.0f / sqrtf(variance + eps);
    float scale = weight * inverse_std;
    known[c] = mean;
    known[channels + c] = inverse_std;
    known[2 * channels + c] = scale;
    known[3 * channels + c] = bias - mean * scale;
}

// From the moments of the planes, a warp each channel; the running statistics follow. Parts of equal size: the mean is
// that of the means, and the variance that within the parts plus that of their means.
KERNEL(256) norm_of_batch(const float* moments, const float* weight, const float* bias, float* running_mean,
                          float* running_var, float* known, int images, int channels, int pixels, float momentum,
                          float eps) {
    int c = (int)(thread_number() / 32), lane = (int)threadIdx.x % 32;
    bool is_channel = c < channels;
    float sum = 0.0f, squares = 0.0f;
    if (is_channel) {
        for (int image = lane; image < images; image += 32) sum += moments[2 * (image * channels + c)];
    }
    float mean = warp_sum(sum) / (float)images;
    if (is_channel) {
        for (int image = lane; image < images; image += 32) {
            const float* of_plane = moments + 2 * (image * channels + c);
            float apart = of_plane[0] - mean;
            squares += of_plane[1] + (float)pixels * apart * apart;
        }
    }
    squares = warp_sum(squares);
    if (!is_channel || lane != 0) return;
    float count = (float)images * (float)pixels;
    know_channel(known, c, channels, mean, squares / count, eps, weight[c], bias[c]);
    running_mean[c] += momentum * (mean - running_mean[c]);
    running_var[c] += momentum * (squares / fmaxf(count - 1.0f, 1.0f) - running_var[c]);
}

// The same from the running statistics.
KERNEL(256) norm_of_running(const float* weight, const float* bias, const float* running_mean,
                            const float* running_var, float* known, int channels, float eps) {
    int c = (int)thread_number();
    if (c < channels) know_channel(known, c, channels, running_mean[c], running_var[c], eps, weight[c], bias[c]);
}

// activation(x * scale + shift + residual)
KERNEL(256) norm_apply(const float* x, const float* known, const float* residual, int has_residual, float* y, int relu,
                       int channels, int pixels, int count) {
    int i = (int)thread_number();
    if (i >= count) return;
    int c = i / pixels % channels;
    float value = x[i] * known[2 * channels + c] + known[3 * channels + c];
    if (has_residual) value += residual[i];
    y[i] = relu ? fmaxf(value, 0.0f) : value;
}

// The gradient before a ReLU whose output was y.
__device__ __forceinline__ float before_relu(const float* y, const float* grad, int relu, i64 i) {
    return relu && !(y[i] > 0.0f) ? 0.0f : grad[i];
}

// Sums of g and of g times the normalised input over each plane, a warp each: [planes, 2].
KERNEL(256) norm_sums(const float* x, const float* y, const float* grad, const float* known, float* sums, int relu,
                      int channels, int pixels, int planes) {
    i64 plane = thread_number() / 32;
    int lane = (int)threadIdx.x % 32;
    bool is_plane = plane < planes;
    float sum = 0.0f, sum_x = 0.0f, inverse_std = 0.0f;
    if (is_plane) {
        int c = (int)(plane % channels);
        float mean = known[c];
        inverse_std = known[channels + c];
        for (int pixel = lane; pixel < pixels; pixel += 32) {
            i64 i = plane * pixels + pixel;
            float g = before_relu(y, grad, relu, i);
            sum += g;
            sum_x += g * (x[i] - mean);
        }
    }
    sum = warp_sum(sum);
    sum_x = warp_sum(sum_x) * inverse_std;
    if (is_plane && lane == 0) {
        sums[2 * plane] = sum;
        sums[2 * plane + 1] = sum_x;
    }
}

// From those, a warp each channel: the gradients of scale and shift are added to, and with gamma / std * (g - mean of g
// - x^ * mean of g x^) = g * a + x * b + c, [3, channels] become a, b and c.
KERNEL(256) norm_factors(const float* sums, const float* weight, const float* known, float* weight_gradient,
                         float* bias_gradient, float* factors, int images, int channels, int pixels) {
    int c = (int)(thread_number() / 32), lane = (int)threadIdx.x % 32;
    float shift = 0.0f, scale = 0.0f;
    if (c < channels) {
        for (int image = lane; image < images; image += 32) {
            shift += sums[2 * (image * channels + c)];
            scale += sums[2 * (image * channels + c) + 1];
        }
    }
    shift = warp_sum(shift);
    scale = warp_sum(scale);
    if (c >= channels || lane != 0) return;
    float count = (float)images * (float)pixels;
    float a = weight[c] * known[channels + c];
    float b = -a * known[channels + c] * scale / count;
    factors[c] = a;
    factors[channels + c] = b;
    factors[2 * channels + c] = -a * shift / count - b * known[c];
    weight_gradient[c] += scale;
    bias_gradient[c] += shift;
}

// The gradient of the input and, where it is asked for, of the residual.
KERNEL(256) norm_gradient(const float* x, const float* y, const float* grad, const float* factors, float* dx,
                          float* residual, int has_residual, int relu, int channels, int pixels, int count) {
    int i = (int)thread_number();
    if (i >= count) return;
    int c = i / pixels % channels;
    float g = before_relu(y, grad, relu, i);
    dx[i] = g * factors[c] + x[i] * factors[channels + c] + factors[2 * channels + c];
    if (has_residual) residual[i] = g;
}

// Max-pool of planes; what lies outside does not count.
KERNEL(256) plane_pool(const float* x, float* y, int height, int width, int out_height, int out_width, int kernel,
                       int stride, int padding, int count) {
    int i = (int)thread_number();
    if (i >= count) return;
    int ox = i % out_width, oy = i / out_width % out_height;
    const float* plane = x + (i64)(i / (out_width * out_height)) * height * width;
    float most = LOWEST;
    for (int iy = max(oy * stride - padding, 0); iy < min(oy * stride - padding + kernel, height); iy++) {
        for (int ix = max(ox * stride - padding, 0); ix < min(ox * stride - padding + kernel, width); ix++) {
            most = fmaxf(most, plane[iy * width + ix]);
        }
    }
    y[i] = most;
}

// Its gradient, which goes to the first of a window's greatest values: each input asks the windows that it lies in.
KERNEL(256) plane_pool_gradient(const float* x, const float* y, const float* grad, float* dx, int height, int width,
                                int out_height, int out_width, int kernel, int stride, int padding, int count) {
    int i = (int)thread_number();
    if (i >= count) return;
    int ix = i % width, iy = i / width % height;
    i64 plane = i / (width * height);
    const float* in = x + plane * height * width;
    i64 outs = plane * out_height * out_width;
    float sum = 0.0f;
    // The last window that begins at or before a place, and how far back the others are.
    for (int oy = (iy + padding) / stride; oy >= 0 && oy * stride - padding + kernel > iy; oy--) {
        for (int ox = (ix + padding) / stride; ox >= 0 && ox * stride - padding + kernel > ix; ox--) {
            if (oy >= out_height || ox >= out_width) continue;
            i64 out = outs + oy * out_width + ox;
            bool wins = in[iy * width + ix] == y[out];
            for (int ky = max(oy * stride - padding, 0); wins && ky <= iy; ky++) {
                int end = ky == iy ? ix : min(ox * stride - padding + kernel, width);
                for (int kx = max(ox * stride - padding, 0); wins && kx < end; kx++) wins = in[ky * width + kx] != y[out];
            }
            if (wins) sum += grad[out];
        }
    }
    dx[i] = sum;
}

// Adds each channel's bias, in place.
KERNEL(256) add_bias(float* y, const float* bias, int channels, int pixels, int count) {
    int i = (int)thread_number();
    if (i < count) y[i] += bias[i / pixels % channels];
}

// Sum of each plane, a warp each.
KERNEL(256) plane_sums(const float* x, float* sums, int pixels, int planes) {
    i64 plane = thread_number() / 32;
    int lane = (int)threadIdx.x % 32;
    float sum = 0.0f;
    if (plane < planes) {
        for (int i = lane; i < pixels; i += 32) sum += x[plane * pixels + i];
    }
    sum = warp_sum(sum);
    if (plane < planes && lane == 0) sums[plane] = sum;
}

// Adds the sum of each channel's planes to `into`, a warp each.
KERNEL(256) add_channel_sums(const float* sums, float* into, int images, int channels) {
    int c = (int)(thread_number() / 32), lane = (int)threadIdx.x % 32;
    float sum = 0.0f;
    if (c < channels) {
        for (int image = lane; image < images; image += 32) sum += sums[image * channels + c];
    }
    sum = warp_sum(sum);
    if (c < channels && lane == 0) into[c] += sum;
}

// The first `used` numbers of each row of `all`, side by side; and added back to where they came from.
KERNEL(256) take_rows(const float* from, float* to, int all, int used, int count) {
    int i = (int)thread_number();
    if (i < count) to[i] = from[(i64)(i / used) * all + i % used];
}
KERNEL(256) add_rows(const float* from, float* into, int all, int used, int count) {
    int i = (int)thread_number();
    if (i < count) into[(i64)(i / used) * all + i % used] += from[i];
}
