// Pictures and tensors become maps, [batch, height, width, channels], channels filled up with zeros to `padded`.

// [B, C, pixels] f32 to a map; with `scaled` the first three channels become x * gain + offset.
KERNEL(256) planar_to_map(const float* x, elem* y, int channels, int padded, int pixels, i64 count,
                                         int scaled, float g0, float g1, float g2, float o0, float o1, float o2) {
    i64 i = thread_number();
    if (i >= count) return;
    int c = (int)(i % padded);
    i64 at = i / padded;
    int pixel = (int)(at % pixels);
    i64 image = at / pixels;
    float value = 0.0f;
    if (c < channels) {
        value = x[(image * channels + c) * pixels + pixel];
        if (scaled) value = value * (c == 0 ? g0 : c == 1 ? g1 : g2) + (c == 0 ? o0 : c == 1 ? o1 : o2);
    }
    y[i] = store(value);
}

// A map to [B, C, pixels] f32.
KERNEL(256) map_to_planar(const elem* x, float* y, int channels, int padded, int pixels, i64 count) {
    i64 i = thread_number();
    if (i >= count) return;
    int pixel = (int)(i % pixels);
    i64 at = i / pixels;
    int c = (int)(at % channels);
    i64 image = at / channels;
    y[i] = load(x[(image * pixels + pixel) * padded + c]);
}

// Three channels of a pixel as a map stores them.
__device__ __forceinline__ void store_pixel(elem* y, int padded, float r, float g, float b) {
    y[0] = store(r);
    y[1] = store(g);
    y[2] = store(b);
    for (int c = 3; c < padded; c++) y[c] = store(0.0f);
}

// A pixel of a frame; black outside.
__device__ __forceinline__ u32 frame_pixel(const u8* frame, int width, int height, int x, int y, int c) {
    bool inside = x >= 0 && y >= 0 && x < width && y < height;
    return inside ? (u32)frame[((i64)y * width + x) * 3 + c] : 0u;
}

// Patches cut out of a frame: bilinear with weights of 1/2048, black where the frame ends, rounded to whole grey levels
// as crop.rs does it, then value * gain + offset. `frame_from_crop` has six numbers for each patch: x axis, y axis,
// translation.
KERNEL(256) crop(const u8* frame, int width, int height, const float* frame_from_crop, elem* y,
                                int size, int padded, i64 count, float g0, float g1, float g2, float o0, float o1,
                                float o2) {
    i64 i = thread_number();
    if (i >= count) return;
    int u = (int)(i % size);
    int v = (int)(i / size % size);
    const float* m = frame_from_crop + i / ((i64)size * size) * 6;
    float at_x = (m[4] + m[2] * (float)v) + m[0] * (float)u;
    float at_y = (m[5] + m[3] * (float)v) + m[1] * (float)u;
    u32 rgb[3] = {0u, 0u, 0u};
    if (at_x > -1.0f && at_y > -1.0f && at_x < (float)width && at_y < (float)height) {
        int x0 = (int)(at_x + 1.0f) - 1, y0 = (int)(at_y + 1.0f) - 1;
        u32 wx = (u32)((at_x - (float)x0) * 2048.0f + 0.5f), wy = (u32)((at_y - (float)y0) * 2048.0f + 0.5f);
        for (int c = 0; c < 3; c++) {
            u32 top = frame_pixel(frame, width, height, x0, y0, c) * (2048u - wx) +
                      frame_pixel(frame, width, height, x0 + 1, y0, c) * wx;
            u32 bottom = frame_pixel(frame, width, height, x0, y0 + 1, c) * (2048u - wx) +
                         frame_pixel(frame, width, height, x0 + 1, y0 + 1, c) * wx;
            rgb[c] = (top * (2048u - wy) + bottom * wy + 2097152u) / 4194304u;
        }
    }
    store_pixel(y + i * padded, padded, (float)rgb[0] * g0 + o0, (float)rgb[1] * g1 + o1, (float)rgb[2] * g2 + o2);
}

// Where a resized pixel lies among `input` pixels (transform.rs: `axis_taps`).
__device__ __forceinline__ float tap(int i, int input, int output, int* low, int* high) {
    float scale = (float)input / (float)output;
    float at = fmaxf(scale * ((float)i + 0.5f) - 0.5f, 0.0f);
    int first = min((int)at, input - 1);
    *low = first;
    *high = min(first + 1, input - 1);
    return fminf(at - (float)first, 1.0f);
}

// A frame of `height` x `width` resized to the top left `rows` x `columns` pixels of a picture of `out_height` x
// `out_width`, value * gain + offset; below and right of it zeros.
KERNEL(256) resize(const u8* frame, int width, int height, elem* y, int columns, int rows,
                                  int out_width, int padded, i64 count, float g0, float g1, float g2, float o0,
                                  float o1, float o2) {
    i64 i = thread_number();
    if (i >= count) return;
    int column = (int)(i % out_width), row = (int)(i / out_width);
    if (column >= columns || row >= rows) {
        store_pixel(y + i * padded, padded, 0.0f, 0.0f, 0.0f);
        return;
    }
    int left, right, above, below;
    float u = tap(column, width, columns, &left, &right);
    float v = tap(row, height, rows, &above, &below);
    float rgb[3];
    for (int c = 0; c < 3; c++) {
        const u8* upper = frame + (i64)above * width * 3 + c;
        const u8* lower = frame + (i64)below * width * 3 + c;
        float top = (float)upper[3 * left] * (1.0f - u) + (float)upper[3 * right] * u;
        float bottom = (float)lower[3 * left] * (1.0f - u) + (float)lower[3 * right] * u;
        rgb[c] = top * (1.0f - v) + bottom * v;
    }
    store_pixel(y + i * padded, padded, rgb[0] * g0 + o0, rgb[1] * g1 + o1, rgb[2] * g2 + o2);
}

// A frame as a whole on the canvas of a one-stage detector, `columns` x `rows`: each pixel a weighted mean of the
// frame's around it, rounded to whole grey levels, `grey` where the frame ends (letterbox.rs: `picture`, with the same
// operations in the same order); then value * gain + offset. `taps` tells for each column, then for each row, the
// frame's first pixel and where its weights begin, which is where those of the one before end.
KERNEL(256) letterbox(const u8* frame, int width, const int* taps, const float* weights, elem* y, int columns,
                                     int padded, float grey, i64 count, float g0, float g1, float g2, float o0,
                                     float o1, float o2) {
    i64 i = thread_number();
    if (i >= count) return;
    const int* across = taps + i % columns * 2;
    const int* down = taps + (columns + i / columns) * 2;
    float rgb[3] = {grey, grey, grey};
    if (across[1] < across[3] && down[1] < down[3]) {
        float sums[3] = {0.5f, 0.5f, 0.5f};
        for (int u = across[1]; u < across[3]; u++) {
            const u8* at = frame + ((i64)down[0] * width + across[0] + u - across[1]) * 3;
            float line[3] = {0.0f, 0.0f, 0.0f};
            for (int v = down[1]; v < down[3]; v++, at += 3 * width)
                for (int c = 0; c < 3; c++) line[c] += weights[v] * (float)at[c];
            for (int c = 0; c < 3; c++) sums[c] += weights[u] * line[c];
        }
        for (int c = 0; c < 3; c++) rgb[c] = (float)min((int)sums[c], 255);
    }
    store_pixel(y + i * padded, padded, rgb[0] * g0 + o0, rgb[1] * g1 + o1, rgb[2] * g2 + o2);
}
