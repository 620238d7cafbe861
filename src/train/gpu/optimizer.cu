// Adam as one pass over all parameters (twin of optimizer.rs). `state` is [2]: the factor that shortens the gradient,
// and whether a gradient was no number: from then on nothing changes any more, until the host looks.

// Sums of the squares of parts of the gradient, a block each.
KERNEL(256) gradient_squares(const float* gradient, float* parts, i64 count) {
    __shared__ float scratch[256];
    float sum = 0.0f;
    for (i64 i = thread_number(); i < count; i += (i64)gridDim.x * blockDim.x) sum += gradient[i] * gradient[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// One block.
KERNEL(256) shorten_gradient(const float* parts, float* state, int count, float longest) {
    __shared__ float scratch[256];
    float sum = 0.0f;
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x) sum += parts[i];
    float length = sqrtf(block_sum(sum, scratch));
    if (threadIdx.x != 0) return;
    state[0] = length > longest ? longest / length : 1.0f;
    if (!(length < 3e38f)) state[1] = 1.0f;
}

// Sets the gradient to 0.
KERNEL(256) adam(float* values, float* gradient, float* mean, float* square, const float* state, float rate,
                 float square_factor, float new_mean, float new_square, float epsilon, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    float g = gradient[i] * state[0];
    gradient[i] = 0.0f;
    if (state[1] != 0.0f) return;
    float m = mean[i] + new_mean * (g - mean[i]);
    float v = square[i] + new_square * (g * g - square[i]);
    mean[i] = m;
    square[i] = v;
    values[i] -= rate * m / (sqrtf(v * square_factor) + epsilon);
}
