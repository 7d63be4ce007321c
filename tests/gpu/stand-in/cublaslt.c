/* A stand-in for cuBLASLt, for the memory of the stand-in driver: it computes products in f32 on the host, as NVIDIA's
 * documentation defines them, and refuses what it is not told in full. Products of 16-bit types are noted, and computed with
 * STAND_IN_RUNS=1.
 *
 * STAND_IN_OUT names a folder: products.txt there gets a line for each product. Only what cudarc calls for a product is here.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

enum { SUCCESS = 0, NO_MEMORY = 3, INVALID = 7, UNSUPPORTED = 15 };
enum { F32 = 0, F16 = 2, BF16 = 14 };
enum { SUMS_IN_F32 = 68, OF_TF32 = 77 };
enum { PLAIN = 1, WITH_BIAS = 4 };

/* A matrix column by column, `batch` of them `stride` elements apart. */
struct layout { int type; uint64_t rows, columns; int64_t leading; int32_t batch; int64_t stride; };
struct product { int32_t turned[3]; int32_t epilogue; uintptr_t bias; };

API int cublasLtCreate(void **handle) { static int it; *handle = &it; return SUCCESS; }

API int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    struct layout *layout = malloc(sizeof *layout);
    if (!layout) return NO_MEMORY;
    *layout = (struct layout){type, rows, columns, leading, 1, 0};
    *out = layout;
    return leading >= (int64_t)rows ? SUCCESS : INVALID;
}

API int cublasLtMatrixLayoutSetAttribute(void *of, int attribute, const void *value, size_t bytes) {
    struct layout *layout = of;
    if (attribute == 5 && bytes == sizeof layout->batch) memcpy(&layout->batch, value, bytes);
    else if (attribute == 6 && bytes == sizeof layout->stride) memcpy(&layout->stride, value, bytes);
    else return INVALID;
    return SUCCESS;
}

API int cublasLtMatrixLayoutDestroy(void *layout) { free(layout); return SUCCESS; }

API int cublasLtMatmulDescCreate(void **out, int sums, int scales) {
    struct product *product = calloc(1, sizeof *product);
    if (!product) return NO_MEMORY;
    product->epilogue = PLAIN;
    *out = product;
    return (sums == SUMS_IN_F32 || sums == OF_TF32) && scales == F32 ? SUCCESS : UNSUPPORTED;
}

API int cublasLtMatmulDescSetAttribute(void *of, int attribute, const void *value, size_t bytes) {
    struct product *product = of;
    if (attribute >= 3 && attribute <= 5 && bytes == 4) memcpy(&product->turned[attribute - 3], value, bytes);
    else if (attribute == 7 && bytes == 4) memcpy(&product->epilogue, value, bytes);
    else if (attribute == 8 && bytes == 8) memcpy(&product->bias, value, bytes);
    else return INVALID;
    return SUCCESS;
}

API int cublasLtMatmulDescDestroy(void *product) { free(product); return SUCCESS; }

API int cublasLtMatmulPreferenceCreate(void **out) { static int it; *out = &it; return SUCCESS; }
API int cublasLtMatmulPreferenceSetAttribute(void *of, int attribute, const void *value, size_t bytes) {
    (void)of; (void)value;
    return attribute == 1 && bytes == 8 ? SUCCESS : INVALID;
}
API int cublasLtMatmulPreferenceDestroy(void *of) { (void)of; return SUCCESS; }

struct found { uint64_t algorithm[8]; size_t workspace; int state; float waves; int unused[4]; };

API int cublasLtMatmulAlgoGetHeuristic(void *handle, void *product, void *a, void *b, void *c, void *d, void *preference,
                                       int most, struct found *found, int *count) {
    (void)handle; (void)product; (void)a; (void)b; (void)c; (void)d; (void)preference;
    if (most < 1) return INVALID;
    memset(found, 0, sizeof *found);
    *count = 1;
    return SUCCESS;
}

/* bf16 is the upper half of an f32. */
static float read(const void *from, int type, int64_t place) {
    if (type == F32) return ((const float *)from)[place];
    if (type == F16) return (float)((const _Float16 *)from)[place];
    uint32_t whole = (uint32_t)((const uint16_t *)from)[place] << 16;
    float value;
    memcpy(&value, &whole, sizeof value);
    return value;
}

static void write_to(void *to, int type, int64_t place, float value) {
    if (type == F32) ((float *)to)[place] = value;
    else if (type == F16) ((_Float16 *)to)[place] = (_Float16)value;
    else {
        uint32_t whole;
        memcpy(&whole, &value, sizeof whole);
        ((uint16_t *)to)[place] = value != value ? 0x7fff : (uint16_t)((whole + 0x7fff + (whole >> 16 & 1)) >> 16);
    }
}

/* An element of op(matrix), of one of the batch. */
static float at(const void *from, const struct layout *layout, int turned, int64_t batch, uint64_t row, uint64_t column) {
    uint64_t place = turned ? column + row * (uint64_t)layout->leading : row + column * (uint64_t)layout->leading;
    return read(from, layout->type, batch * layout->stride + (int64_t)place);
}

static void note(const struct layout *a, const struct layout *d, const struct product *product, uint64_t inner) {
    const char *folder = getenv("STAND_IN_OUT");
    if (!folder) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/products.txt", folder);
    FILE *list = fopen(path, "a");
    if (!list) return;
    const char *type = d->type == F32 ? "f32" : d->type == BF16 ? "bf16" : "f16";
    fprintf(list, "%s %d x %llu x %llu x %llu%s\n", type, a->batch, (unsigned long long)d->rows,
            (unsigned long long)d->columns, (unsigned long long)inner, product->epilogue == WITH_BIAS ? " with a bias" : "");
    fclose(list);
}

API int cublasLtMatmul(void *handle, const struct product *product, const float *alpha, const void *a,
                       const struct layout *of_a, const void *b, const struct layout *of_b, const float *beta, const void *c,
                       const struct layout *of_c, void *d, const struct layout *of_d, const void *algorithm, void *workspace,
                       size_t bytes, void *stream) {
    (void)handle; (void)workspace; (void)bytes; (void)stream; (void)of_c;
    int turn_a = product->turned[0], turn_b = product->turned[1];
    uint64_t inner = turn_a ? of_a->rows : of_a->columns;
    int fits = (turn_a ? of_a->columns : of_a->rows) == of_d->rows && (turn_b ? of_b->rows : of_b->columns) == of_d->columns &&
               (turn_b ? of_b->columns : of_b->rows) == inner && of_a->batch == of_d->batch && of_b->batch == of_d->batch;
    int types = of_a->type == of_d->type && of_b->type == of_d->type &&
                (of_d->type == F32 || of_d->type == F16 || of_d->type == BF16);
    int bias = product->epilogue == WITH_BIAS;
    if (!fits || !types || !algorithm || *beta != 0 || c != d || product->turned[2]) return INVALID;
    if ((!bias && product->epilogue != PLAIN) || (bias && !product->bias)) return UNSUPPORTED;
    note(of_a, of_d, product, inner);
    const char *runs = getenv("STAND_IN_RUNS");
    if (of_d->type != F32 && !(runs && !strcmp(runs, "1"))) return SUCCESS;
    for (int64_t one = 0; one < of_d->batch; one++)
        for (uint64_t column = 0; column < of_d->columns; column++)
            for (uint64_t row = 0; row < of_d->rows; row++) {
                double sum = 0;
                for (uint64_t i = 0; i < inner; i++)
                    sum += (double)at(a, of_a, turn_a, one, row, i) * at(b, of_b, turn_b, one, i, column);
                float added = bias ? read((const void *)product->bias, of_d->type, (int64_t)row) : 0;
                int64_t place = one * of_d->stride + (int64_t)(row + column * (uint64_t)of_d->leading);
                write_to(d, of_d->type, place, *alpha * (float)sum + added);
            }
    return SUCCESS;
}
