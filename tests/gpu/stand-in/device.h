// What CUDA's compiler knows of itself, for kernels that are compiled for the processor instead: as much of it as CubeCL's kernels
// use. 16 bits are rounded to nearest as a device does; the products of warps add up in f32, in one order.
#include "threads.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

static struct work *stand_in;

#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n)
#define threadIdx (stand_in->thread)
#define blockIdx (stand_in->block)
#define blockDim (stand_in->threads)
#define gridDim (stand_in->blocks)
static const int warpSize = 32;

static inline void __syncthreads() { stand_in->wait_for_block(); }
static inline void __syncwarp(unsigned = ~0u) { stand_in->wait_for_warp(); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
template <typename T> static inline T min(T a, T b) { return b < a ? b : a; }
template <typename T> static inline T max(T a, T b) { return a < b ? b : a; }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }

// Another lane's value.
template <typename T> static T exchanged(T mine, unsigned from) {
    memcpy(&stand_in->lanes[stand_in->lane], &mine, sizeof(T));
    stand_in->wait_for_warp();
    T theirs;
    memcpy(&theirs, &stand_in->lanes[from], sizeof(T));
    stand_in->wait_for_warp();
    return theirs;
}
template <typename T> static T __shfl_xor_sync(unsigned, T x, int by) { return exchanged(x, stand_in->lane ^ by); }
template <typename T> static T __shfl_sync(unsigned, T x, int from) { return exchanged(x, from & 31); }
template <typename T> static T __shfl_down_sync(unsigned, T x, unsigned by) {
    return exchanged(x, stand_in->lane + by < 32 ? stand_in->lane + by : stand_in->lane);
}
template <typename T> static T __shfl_up_sync(unsigned, T x, unsigned by) {
    return exchanged(x, stand_in->lane >= by ? stand_in->lane - by : stand_in->lane);
}

// bf16: the upper half of an f32.
struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        unsigned whole;
        memcpy(&whole, &x, 4);
        bits = x != x ? 0x7fff : (unsigned short)((whole + 0x7fff + (whole >> 16 & 1)) >> 16);
    }
    __nv_bfloat16(double x) : __nv_bfloat16((float)x) {}
    __nv_bfloat16(int x) : __nv_bfloat16((float)x) {}
    __nv_bfloat16(unsigned x) : __nv_bfloat16((float)x) {}
    __nv_bfloat16(bool x) : __nv_bfloat16((float)x) {}
    operator float() const {
        unsigned whole = (unsigned)bits << 16;
        float x;
        memcpy(&x, &whole, 4);
        return x;
    }
};
struct __half {
    _Float16 value;
    __half() = default;
    __half(float x) : value((_Float16)x) {}
    __half(double x) : value((_Float16)x) {}
    __half(int x) : value((_Float16)x) {}
    __half(unsigned x) : value((_Float16)x) {}
    __half(bool x) : value((_Float16)x) {}
    operator float() const { return (float)value; }
};
typedef __half half;
template <typename T> struct two { T x, y; };
typedef two<__nv_bfloat16> __nv_bfloat162;
typedef two<__half> __half2;

// Arithmetic of 16 bits is in f32, and rounded.
#define NARROW(T)                                                                                                                    \
    static inline T operator+(T a, T b) { return T((float)a + (float)b); }                                                           \
    static inline T operator-(T a, T b) { return T((float)a - (float)b); }                                                           \
    static inline T operator*(T a, T b) { return T((float)a * (float)b); }                                                           \
    static inline T operator/(T a, T b) { return T((float)a / (float)b); }                                                           \
    static inline T operator-(T a) { return T(-(float)a); }                                                                          \
    static inline T &operator+=(T &a, T b) { return a = a + b; }                                                                     \
    static inline bool operator<(T a, T b) { return (float)a < (float)b; }                                                           \
    static inline bool operator>(T a, T b) { return (float)a > (float)b; }                                                           \
    static inline bool operator<=(T a, T b) { return (float)a <= (float)b; }                                                         \
    static inline bool operator>=(T a, T b) { return (float)a >= (float)b; }                                                         \
    static inline bool operator==(T a, T b) { return (float)a == (float)b; }                                                         \
    static inline bool operator!=(T a, T b) { return (float)a != (float)b; }                                                         \
    static inline bool __hisnan(T a) { return (float)a != (float)a; }                                                                \
    static inline T __hfma(T a, T b, T c) { return T(fmaf(a, b, c)); }                                                               \
    static inline T __hmax(T a, T b) { return a > b || __hisnan(b) ? a : b; }                                                        \
    static inline T __hmin(T a, T b) { return a < b || __hisnan(b) ? a : b; }                                                        \
    static inline T __habs(T a) { return T(fabsf(a)); }                                                                              \
    static inline T hexp(T a) { return T(expf(a)); }                                                                                 \
    static inline T hlog(T a) { return T(logf(a)); }                                                                                 \
    static inline T hsqrt(T a) { return T(sqrtf(a)); }                                                                               \
    static inline T hrcp(T a) { return T(1.0f / (float)a); }                                                                         \
    static inline two<T> operator+(two<T> a, two<T> b) { return {a.x + b.x, a.y + b.y}; }                                            \
    static inline two<T> operator-(two<T> a, two<T> b) { return {a.x - b.x, a.y - b.y}; }                                            \
    static inline two<T> operator*(two<T> a, two<T> b) { return {a.x * b.x, a.y * b.y}; }                                            \
    static inline two<T> operator/(two<T> a, two<T> b) { return {a.x / b.x, a.y / b.y}; }                                            \
    static inline two<T> h2exp(two<T> a) { return {hexp(a.x), hexp(a.y)}; }                                                          \
    static inline two<T> h2log(two<T> a) { return {hlog(a.x), hlog(a.y)}; }                                                          \
    static inline two<T> h2sqrt(two<T> a) { return {hsqrt(a.x), hsqrt(a.y)}; }
NARROW(__nv_bfloat16)
NARROW(__half)

// f32 with as many digits as f16, to nearest.
static inline float __float_to_tf32(float x) {
    if (x != x) return x;
    unsigned bits;
    memcpy(&bits, &x, 4);
    bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&x, &bits, 4);
    return x;
}

// Tiles of matrices that a warp multiplies. Its first lane holds them whole; the others wait.
namespace nvcuda { namespace wmma {
using ::__float_to_tf32;
struct matrix_a; struct matrix_b; struct accumulator; struct row_major; struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision { struct tf32; }
template <typename T> struct stored { typedef T type; };
template <> struct stored<precision::tf32> { typedef float type; };
template <typename Use, int M, int N, int K> struct extent;
template <int M, int N, int K> struct extent<matrix_a, M, N, K> { enum { rows = M, columns = K }; };
template <int M, int N, int K> struct extent<matrix_b, M, N, K> { enum { rows = K, columns = N }; };
template <int M, int N, int K> struct extent<accumulator, M, N, K> { enum { rows = M, columns = N }; };
template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
    enum { rows = extent<Use, M, N, K>::rows, columns = extent<Use, M, N, K>::columns, num_elements = rows * columns };
    typename stored<T>::type x[num_elements];
};
template <typename Layout> struct is_by_columns { enum { value = 0 }; };
template <> struct is_by_columns<col_major> { enum { value = 1 }; };

template <typename F, typename T> static void load(F &to, const T *from, unsigned step, bool by_columns) {
    stand_in->wait_for_warp();
    if (stand_in->lane == 0)
        for (unsigned r = 0; r < F::rows; r++)
            for (unsigned c = 0; c < F::columns; c++) to.x[r * F::columns + c] = from[by_columns ? c * step + r : r * step + c];
    stand_in->wait_for_warp();
}
template <typename Use, int M, int N, int K, typename T, typename L, typename S>
static void load_matrix_sync(fragment<Use, M, N, K, T, L> &to, const S *from, unsigned step) {
    load(to, from, step, is_by_columns<L>::value);
}
template <int M, int N, int K, typename T, typename S>
static void load_matrix_sync(fragment<accumulator, M, N, K, T> &to, const S *from, unsigned step, layout_t layout) {
    load(to, from, step, layout == mem_col_major);
}
template <typename F, typename T> static void fill_fragment(F &to, T value) {
    for (auto &x : to.x) x = value;
}
template <typename S, int M, int N, int K, typename T>
static void store_matrix_sync(S *to, const fragment<accumulator, M, N, K, T> &from, unsigned step, layout_t layout) {
    stand_in->wait_for_warp();
    if (stand_in->lane == 0)
        for (unsigned r = 0; r < M; r++)
            for (unsigned c = 0; c < N; c++) to[layout == mem_col_major ? c * step + r : r * step + c] = from.x[r * N + c];
    stand_in->wait_for_warp();
}
template <int M, int N, int K, typename T, typename A, typename B, typename LA, typename LB, typename C>
static void mma_sync(fragment<accumulator, M, N, K, T> &to, const fragment<matrix_a, M, N, K, A, LA> &a,
                     const fragment<matrix_b, M, N, K, B, LB> &b, const fragment<accumulator, M, N, K, C> &c) {
    if (stand_in->lane) return;
    float left[M * K], right[K * N];
    for (int i = 0; i < M * K; i++) left[i] = (float)a.x[i];
    for (int i = 0; i < K * N; i++) right[i] = (float)b.x[i];
    for (int m = 0; m < M; m++) {
        float row[N] = {};
        for (int k = 0; k < K; k++)
            for (int n = 0; n < N; n++) row[n] += left[m * K + k] * right[k * N + n];
        for (int n = 0; n < N; n++) to.x[m * N + n] = T((float)c.x[m * N + n] + row[n]);
    }
}
} }
// Calls a kernel with a launch's arguments, of which each is pointed to.
template <unsigned... I> struct places {};
template <unsigned N, unsigned... I> struct count_to : count_to<N - 1, N - 1, I...> {};
template <unsigned... I> struct count_to<0, I...> { typedef places<I...> type; };
template <typename T> struct bare { typedef T type; };
template <typename T> struct bare<const T> { typedef T type; };
template <typename... A, unsigned... I> static void call(void (*kernel)(A...), void **arguments, places<I...>) {
    kernel(*(typename bare<A>::type *)arguments[I]...);
}
template <typename... A> static void call(void (*kernel)(A...), void **arguments) {
    call(kernel, arguments, typename count_to<sizeof...(A)>::type());
}
extern "C" __attribute__((visibility("default"))) void stand_in_prepare(struct work *work) { stand_in = work; }
