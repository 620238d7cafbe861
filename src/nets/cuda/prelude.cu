// Common to all kernels. ELEM chooses the type of activations and weights: 0 is f32, 1 is f16, 2 is bf16. Sums are
// f32 everywhere. No header of the CUDA toolkit is read, so that a machine needs none; the tests compile the same text
// for the processor (`host.h`).

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifdef LIXELSCOPE_HOST
#define ALIGN16 alignas(16)
#else
#define ALIGN16 __align__(16)
#define DYNAMIC_SHARED(type, name)                        \
    extern __shared__ float4 lixelscope_shared[];         \
    type* name = reinterpret_cast<type*>(lixelscope_shared)
#endif

// A kernel for blocks of at most so many threads: more registers than those leave are not used.
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

#define LOWEST __uint_as_float(0xff800000u) // minus infinity

// What a thread moves at once where nothing is computed.
struct ALIGN16 Quad {
    u32 x, y, z, w;
};

#if ELEM == 0
typedef float elem;
__device__ __forceinline__ float load(elem x) { return x; }
__device__ __forceinline__ elem store(float x) { return x; }
#elif ELEM == 1
struct elem {
    u16 bits;
};
#ifdef LIXELSCOPE_HOST
__device__ __forceinline__ float load(elem x) { return host_from_half(x.bits); }
__device__ __forceinline__ elem store(float x) { return elem{host_to_half(x)}; }
#else
__device__ __forceinline__ float load(elem x) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
    return value;
}
__device__ __forceinline__ elem store(float x) {
    elem value;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(value.bits) : "f"(x));
    return value;
}
#endif
#else
struct elem {
    u16 bits;
};
__device__ __forceinline__ float load(elem x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ elem store(float x) {
    u32 bits = __float_as_uint(x);
    // To nearest, ties to even; what is not a number stays so.
    bits = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
    elem value;
    value.bits = (u16)(bits >> 16);
    return value;
}
#endif

// The number of this thread in the grid.
__device__ __forceinline__ i64 thread_number() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// Order of floats as order of unsigned numbers.
__device__ __forceinline__ u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// All 32 lanes of a warp into one number, told to each.
__device__ __forceinline__ float warp_sum(float x) {
    for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lane));
    return x;
}

// A block's threads into one number, told to each. `scratch` holds one float for each thread; a power of two of them.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    __syncthreads();
    scratch[threadIdx.x] = x;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
    }
    __syncthreads();
    return scratch[0];
}
__device__ __forceinline__ float block_max(float x, float* scratch) {
    __syncthreads();
    scratch[threadIdx.x] = x;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) scratch[threadIdx.x] = fmaxf(scratch[threadIdx.x], scratch[threadIdx.x + half]);
    }
    __syncthreads();
    return scratch[0];
}
