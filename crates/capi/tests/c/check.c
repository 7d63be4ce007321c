/* Classifies a clip in all ways there are, in several threads, and makes every mistake that can be made safely.
 * check MODEL DAMAGED_MODEL prints "class probability label" lines; exit code 1 and a line on stderr when a check fails. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vjepa.h>

enum { FRAMES = 4, HEIGHT = 36, WIDTH = 44, CLASSES = 7, THREADS = 4, SIZE = FRAMES * HEIGHT * WIDTH * 3 };

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, vjepa_last_error());   \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* The call fails with this code and a text that holds these words. */
#define FAILS(code, words, call)                                  \
    do {                                                          \
        CHECK((call) == (code));                                  \
        CHECK(strstr(vjepa_last_error(), (words)) != NULL);       \
    } while (0)

static uint8_t pixels[SIZE];
static vjepa_session *session;

static size_t classify(vjepa_prediction *found) {
    size_t count = 99;
    CHECK(vjepa_classify(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, found, CLASSES, &count) == VJEPA_OK);
    CHECK(count == CLASSES);
    return count;
}

static void *in_a_thread(void *expected) {
    CHECK(strcmp(vjepa_last_error(), "") == 0);
    for (int round = 0; round < 5; round++) {
        vjepa_prediction found[CLASSES];
        classify(found);
        CHECK(memcmp(found, expected, sizeof found) == 0);
    }
    FAILS(VJEPA_ERROR_ARGUMENT, "`path` is null", vjepa_open(NULL, NULL, NULL, 0, &(vjepa_session *){NULL}));
    return NULL;
}

static void model(void) {
    size_t offsets[FRAMES], shape[5];
    CHECK(vjepa_num_frames(session) == FRAMES && vjepa_crop_size(session) == 32 && vjepa_crop_width(session) == 32);
    CHECK(vjepa_frame_offsets(session, offsets, FRAMES) == VJEPA_OK);
    for (size_t i = 0; i < FRAMES; i++) CHECK(offsets[i] == 2 * i);
    FAILS(VJEPA_ERROR_ARGUMENT, "room for 3", vjepa_frame_offsets(session, offsets, 3));
    CHECK(vjepa_input_shape(session, shape) == VJEPA_OK);
    CHECK(shape[0] == 0 && shape[1] == 3 && shape[2] == FRAMES && shape[3] == 32 && shape[4] == 32);
    CHECK(vjepa_views(session) == 1 && vjepa_views(NULL) == 0);
    CHECK(vjepa_label_count(session) == CLASSES);
    CHECK(strcmp(vjepa_label(session, 0), "zero") == 0 && vjepa_label(session, CLASSES) == NULL);
    CHECK(strstr(vjepa_runtime(session), "tract") != NULL);
}

/* The same by hand: prepare, run a batch of two, softmax. */
static void prepared(const vjepa_prediction *expected) {
    const size_t one = 3 * FRAMES * 32 * 32, shape[5] = {2, 3, FRAMES, 32, 32};
    float *clips = malloc(2 * one * sizeof *clips);
    CHECK(clips != NULL);
    CHECK(vjepa_prepare(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, clips, one) == VJEPA_OK);
    CHECK(vjepa_prepare(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, clips + one, one) == VJEPA_OK);
    FAILS(VJEPA_ERROR_ARGUMENT, "room", vjepa_prepare(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, clips, one - 1));
    vjepa_outputs *outputs = NULL;
    CHECK(vjepa_run(session, clips, 2 * one, shape, &outputs) == VJEPA_OK);
    CHECK(vjepa_outputs_count(outputs) == 1 && strcmp(vjepa_outputs_name(outputs, 0), "logits") == 0);
    CHECK(vjepa_outputs_rank(outputs, 0) == 2 && vjepa_outputs_size(outputs, 0) == 2 * CLASSES);
    CHECK(vjepa_outputs_shape(outputs, 0)[0] == 2 && vjepa_outputs_shape(outputs, 0)[1] == CLASSES);
    CHECK(vjepa_outputs_name(outputs, 1) == NULL && vjepa_outputs_values(outputs, 1) == NULL);
    CHECK(strstr(vjepa_last_error(), "no result 1") != NULL);
    const float *logits = vjepa_outputs_values(outputs, 0) + CLASSES;
    double total = 0;
    for (int i = 0; i < CLASSES; i++) total += exp(logits[i]);
    for (int i = 0; i < CLASSES; i++) {
        CHECK(fabs(exp(logits[expected[i].class_index]) / total - expected[i].probability) < 1e-5);
    }
    vjepa_outputs_free(outputs);
    FAILS(VJEPA_ERROR_ARGUMENT, "values", vjepa_run(session, clips, one, shape, &outputs));
    CHECK(outputs == NULL);
    const size_t small[5] = {1, 3, FRAMES, 16, 64};
    FAILS(VJEPA_ERROR_ARGUMENT, "expects", vjepa_run(session, clips, one, small, &outputs));
    const size_t huge[5] = {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX};
    FAILS(VJEPA_ERROR_ARGUMENT, "values", vjepa_run(session, clips, one, huge, &outputs));
    FAILS(VJEPA_ERROR_ARGUMENT, "more than memory", vjepa_run(session, clips, SIZE_MAX, shape, &outputs));
    FAILS(VJEPA_ERROR_ARGUMENT, "`clips` is null", vjepa_run(session, NULL, one, shape, &outputs));
    FAILS(VJEPA_ERROR_ARGUMENT, "`outputs` is null", vjepa_run(session, clips, one, shape, NULL));
    FAILS(VJEPA_ERROR_ARGUMENT, "not aligned",
          vjepa_run(session, (const float *)(const void *)((const char *)clips + 1), one - 1, shape, &outputs));
    free(clips);
}

static void mistakes(const char *path, const char *damaged) {
    vjepa_session *none = session;
    FAILS(VJEPA_ERROR_OPEN, "no.onnx", vjepa_open("no.onnx", NULL, NULL, 0, &none));
    CHECK(none == NULL);
    FAILS(VJEPA_ERROR_OPEN, "damaged", vjepa_open(damaged, "tract", NULL, 1, &none));
    FAILS(VJEPA_ERROR_ARGUMENT, "no runtime `other`", vjepa_open(path, "other", NULL, 0, &none));
    FAILS(VJEPA_ERROR_ARGUMENT, "UTF-8", vjepa_open(path, "\xff", NULL, 0, &none));
    FAILS(VJEPA_ERROR_ARGUMENT, "`session` is null", vjepa_open(path, NULL, NULL, 0, NULL));

    vjepa_prediction best[2];
    size_t count = 99;
    CHECK(vjepa_classify(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, best, 2, &count) == VJEPA_OK && count == 2);
    FAILS(VJEPA_ERROR_ARGUMENT, "bytes of RGB",
          vjepa_classify(session, pixels, SIZE - 1, FRAMES, HEIGHT, WIDTH, best, 2, &count));
    CHECK(count == 0);
    FAILS(VJEPA_ERROR_ARGUMENT, "bytes of RGB",
          vjepa_classify(session, pixels, SIZE, FRAMES, SIZE_MAX, SIZE_MAX, best, 2, &count));
    FAILS(VJEPA_ERROR_ARGUMENT, "4 frames, got 2",
          vjepa_classify(session, pixels, SIZE / 2, FRAMES / 2, HEIGHT, WIDTH, best, 2, &count));
    FAILS(VJEPA_ERROR_ARGUMENT, "frame", vjepa_classify(session, pixels, 0, FRAMES, 0, WIDTH, best, 2, &count));
    FAILS(VJEPA_ERROR_ARGUMENT, "`session` is null",
          vjepa_classify(NULL, pixels, SIZE, FRAMES, HEIGHT, WIDTH, best, 2, &count));
    FAILS(VJEPA_ERROR_ARGUMENT, "`frames` is null",
          vjepa_classify(session, NULL, SIZE, FRAMES, HEIGHT, WIDTH, best, 2, &count));
    FAILS(VJEPA_ERROR_ARGUMENT, "`predictions` is null",
          vjepa_classify(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, NULL, 2, &count));
    FAILS(VJEPA_ERROR_ARGUMENT, "`count` is null",
          vjepa_classify(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, best, 2, NULL));

    CHECK(vjepa_num_frames(NULL) == 0 && vjepa_crop_size(NULL) == 0 && vjepa_crop_width(NULL) == 0 && vjepa_label_count(NULL) == 0);
    CHECK(vjepa_label(NULL, 0) == NULL && vjepa_runtime(NULL) == NULL && vjepa_outputs_count(NULL) == 0);
    CHECK(vjepa_outputs_shape(NULL, 0) == NULL && vjepa_outputs_rank(NULL, 0) == 0);
    vjepa_close(NULL);
    vjepa_outputs_free(NULL);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    CHECK(vjepa_abi_version() == VJEPA_ABI_VERSION);
    CHECK(strcmp(vjepa_last_error(), "") == 0);
    for (size_t i = 0; i < SIZE; i++) pixels[i] = (uint8_t)(i * 31 % 251);
    CHECK(vjepa_open(argv[1], "tract", NULL, 1, &session) == VJEPA_OK && session != NULL);
    model();

    /* Padding in the structure is compared too. */
    vjepa_prediction found[CLASSES];
    classify(found);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, in_a_thread, found) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);

    prepared(found);
    mistakes(argv[1], argv[2]);
    for (int i = 0; i < CLASSES; i++) {
        printf("%zu %.9f %s\n", found[i].class_index, found[i].probability, found[i].label);
    }
    vjepa_close(session);
    return 0;
}
