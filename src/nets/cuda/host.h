// Enough of CUDA for the kernels' text to run on the processor: what the tests hold against the plain twins. The
// threads of a block are fibers that take turns at every barrier and every exchange between lanes; blocks follow one
// another. Kernels are asked for on the standard input, one after the other, each end is told on the standard output;
// their memory is a file that host.rs writes and reads (and says what of it is whose).

#define LIXELSCOPE_HOST 1

#include <fcntl.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
// Blocks follow one another, so what they share can be a variable of the program.
#define __shared__ static
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(host_shared)

struct Dim3 {
    unsigned x, y, z;
};
static Dim3 gridDim, blockDim, blockIdx, threadIdx;
static unsigned char* host_shared;

using std::max;
using std::min;

static inline float __uint_as_float(unsigned x) {
    float y;
    memcpy(&y, &x, 4);
    return y;
}
static inline unsigned __float_as_uint(float x) {
    unsigned y;
    memcpy(&y, &x, 4);
    return y;
}
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

template <class T>
static inline T atomicAdd(T* at, T x) {
    T before = *at;
    *at += x;
    return before;
}
template <class T>
static inline T atomicOr(T* at, T x) {
    T before = *at;
    *at |= x;
    return before;
}

static inline float host_from_half(unsigned short bits) {
    unsigned exponent = (bits >> 10) & 31, fraction = bits & 1023;
    float value = exponent == 0    ? std::ldexp((float)fraction, -24)
                  : exponent == 31 ? (fraction ? NAN : INFINITY)
                                   : std::ldexp((float)(fraction | 1024), (int)exponent - 25);
    return bits & 0x8000 ? -value : value;
}
static inline unsigned short host_to_half(float x) {
    unsigned short sign = std::signbit(x) ? 0x8000 : 0;
    float size = std::fabs(x);
    if (std::isnan(x)) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    int exponent = 0;
    std::frexp(size, &exponent); // size = f * 2^exponent, f in [1/2, 1)
    int unit = std::max(exponent - 11, -24);
    unsigned steps = (unsigned)std::nearbyint(std::ldexp(size, -unit)); // ties to even
    // The sum carries into the exponent where the fraction overflows.
    return size == 0.0f ? sign : sign | (unsigned short)(((unsigned)(unit + 24) << 10) + steps);
}

// Fibers. A context is made for each thread; from then on jumps change between them, which ask nothing of the system.
struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::vector<unsigned char> stack;
    Dim3 index;
    bool started, done;
    // Which half of `exchanged` it writes next.
    bool half;
};
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static size_t running;
static float exchanged[2][1024];
// The kernel has no barrier: its threads need no fibers.
static bool straight = false;

// Goes on with the fiber that `running` names, until it waits or ends.
__attribute__((noinline)) static void host_resume() {
    Fiber& fiber = fibers[running];
    threadIdx = fiber.index;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.context);
}

// The others have their turn.
__attribute__((noinline)) static void host_switch() {
    if (straight) {
        fprintf(stderr, "the first thread met no barrier, another one does\n");
        exit(2);
    }
    if (_setjmp(fibers[running].place) == 0) _longjmp(scheduler, 1);
}
#define __syncthreads() host_switch()

// All lanes of all warps must come here, as a barrier. The halves change, so that nobody writes what others still read.
static inline float __shfl_xor_sync(unsigned, float x, int lane) {
    unsigned self = threadIdx.x;
    float* all = exchanged[straight ? 0 : fibers[running].half];
    all[self] = x;
    host_switch();
    fibers[running].half = !fibers[running].half;
    return all[(self & ~31u) | ((self ^ (unsigned)lane) & 31u)];
}

// The file. What no buffer lies in may not be touched, and each buffer ends where such a part begins.
static unsigned char* host_memory;

// A request: name, grid, block, bytes of shared memory, the parts of the memory that it may touch, then the arguments'
// bytes: of a number, or of an address.
struct Request {
    std::vector<std::vector<unsigned char>> arguments;
    size_t next = 0;
};

[[noreturn]] static void host_fail(const char* what) {
    fprintf(stderr, "%s\n", what);
    exit(2);
}
static void host_read(void* to, size_t bytes) {
    if (bytes && fread(to, 1, bytes, stdin) != bytes) host_fail("the request ends early");
}
template <class T>
static T host_number() {
    T x;
    host_read(&x, sizeof x);
    return x;
}

template <class T>
struct Take {
    static T from(Request& request) {
        std::vector<unsigned char>& bytes = request.arguments.at(request.next++);
        if (bytes.size() != sizeof(T)) {
            fprintf(stderr, "argument %zu has %zu bytes, not %zu\n", request.next - 1, bytes.size(), sizeof(T));
            exit(2);
        }
        T x;
        memcpy(&x, bytes.data(), sizeof x);
        return x;
    }
};
template <class T>
struct Take<T*> {
    static T* from(Request& request) {
        uint64_t at = Take<uint64_t>::from(request);
        return at ? (T*)(host_memory + at) : nullptr;
    }
};

static std::function<void()> host_call;

static void host_entry() {
    host_call();
    fibers[running].done = true;
    _longjmp(scheduler, 1);
}

// All threads of the block that `blockIdx` names.
static void host_block() {
    const size_t stack_bytes = 64 * 1024;
    size_t count = (size_t)blockDim.x;
    if (straight) {
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) host_call();
        return;
    }
    if (fibers.size() < count) fibers.resize(count);
    for (size_t i = 0; i < count; i++) {
        Fiber& fiber = fibers[i];
        fiber.stack.resize(stack_bytes);
        fiber.index = {(unsigned)i, 0, 0};
        fiber.started = fiber.done = fiber.half = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, host_entry, 0);
    }
    bool first = true;
    for (size_t done = 0; done < count;) {
        done = 0;
        for (running = 0; running < count; running++) {
            host_resume();
            if (running == 0 && fibers[0].done && first) {
                straight = true;
                for (threadIdx.x = 1; threadIdx.x < blockDim.x; threadIdx.x++) host_call();
                return;
            }
            done += fibers[running].done;
        }
        first = false;
        if (done != 0 && done != count) {
            fprintf(stderr, "%zu threads of a block of %zu came to an end while the others wait for them\n", done, count);
            exit(2);
        }
    }
}

template <class... A>
static void host_run(void (*kernel)(A...), Request& request) {
    std::tuple<A...> arguments{Take<A>::from(request)...}; // braces: in their order
    if (request.next != request.arguments.size()) {
        fprintf(stderr, "%zu arguments, not %zu\n", request.arguments.size(), request.next);
        exit(2);
    }
    host_call = [&] { std::apply(kernel, arguments); };
    for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) host_block();
}

#define HOST_KERNEL(name) \
    if (wanted == #name) { \
        host_run(name, request); \
        ran = true; \
    }

static void host_open(const char* path) {
    int file = open(path, O_RDWR);
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0) host_fail("the memory is not there");
    void* memory = mmap(nullptr, (size_t)about.st_size, PROT_NONE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (memory == MAP_FAILED) host_fail("the memory cannot be mapped");
    host_memory = (unsigned char*)memory;
}

// `table` is a function that asks for each kernel with HOST_KERNEL.
static int host_main(bool (*table)(const std::string&, Request&), const char* path) {
    host_open(path);
    uint32_t length;
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        std::string wanted(length, ' ');
        host_read(&wanted[0], wanted.size());
        gridDim.x = host_number<uint32_t>();
        gridDim.y = host_number<uint32_t>();
        gridDim.z = host_number<uint32_t>();
        blockDim = {host_number<uint32_t>(), 1, 1};
        std::vector<unsigned char> shared(host_number<uint32_t>());
        host_shared = shared.data();
        for (uint32_t parts = host_number<uint32_t>(); parts > 0; parts--) {
            uint64_t start = host_number<uint64_t>(), bytes = host_number<uint64_t>();
            if (mprotect(host_memory + start, (size_t)bytes, PROT_READ | PROT_WRITE) != 0) host_fail("no such memory");
        }
        Request request;
        request.arguments.resize(host_number<uint32_t>());
        for (auto& argument : request.arguments) {
            argument.resize((size_t)host_number<uint64_t>());
            host_read(argument.data(), argument.size());
        }
        straight = false;
        if (!table(wanted, request)) {
            fprintf(stderr, "there is no kernel %s\n", wanted.c_str());
            return 2;
        }
        putchar(1);
        fflush(stdout);
    }
    return 0;
}
