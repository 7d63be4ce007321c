/*
 * vjepa: exported models from C, C++ and everything that calls C.
 *
 * Functions that can fail return VJEPA_OK or another VJEPA_ code; vjepa_last_error() says in a sentence what was wrong and
 * what to do. Null pointers, wrong sizes, damaged models and the runtimes' panics are such failures, never crashes. What
 * cannot be checked is the caller's: handles must come from this library and not be used after they are freed, and buffers
 * must be as long as is said.
 *
 * A session may be used from several threads at once. tract runs them at the same time, ONNX Runtime one after another.
 * Freeing it while a thread uses it is the caller's mistake. Errors belong to the thread that made the call.
 *
 * No call waits for ever in a child made by fork(). A session that the parent opened works there when it runs on tract, or
 * on ONNX Runtime's CPU provider with one thread; any other fails at once with VJEPA_ERROR_RUN, and the child opens its own
 * instead. When another thread of the parent was inside the library as it forked, what it held stays locked in the child:
 * the session that was running fails there, and if a model was being opened or run for the first time every call fails. In
 * a child vjepa_close() frees nothing of the parent's.
 */

#ifndef VJEPA_H
#define VJEPA_H

#include <stddef.h>
#include <stdint.h>

/**
 * Version of this interface. A program compares it with `vjepa_abi_version()` of the library it runs with.
 */
#define VJEPA_ABI_VERSION 1

/**
 * Done.
 */
#define VJEPA_OK 0

/**
 * A null pointer, a size that does not fit, an unknown word: the caller's mistake.
 */
#define VJEPA_ERROR_ARGUMENT 1

/**
 * The model cannot be opened: missing, damaged, or its runtime is not there.
 */
#define VJEPA_ERROR_OPEN 2

/**
 * The model cannot be run.
 */
#define VJEPA_ERROR_RUN 3

/**
 * A mistake in the library; please report it.
 */
#define VJEPA_ERROR_INTERNAL 4

/**
 * The results of a run.
 */
typedef struct vjepa_outputs vjepa_outputs;

/**
 * An open model.
 */
typedef struct vjepa_session vjepa_session;

/**
 * A class and how probable it is.
 */
typedef struct vjepa_prediction {
  /**
   * Index of the class.
   */
  size_t class_index;
  /**
   * Between 0 and 1; all classes together give 1.
   */
  double probability;
  /**
   * Name of the class, in UTF-8; null when it has none. The text is the session's.
   */
  const char *label;
} vjepa_prediction;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The library's version of the interface; use the library only when it is `VJEPA_ABI_VERSION`.
 */
uint32_t vjepa_abi_version(void);

/**
 * What was wrong in this thread's last call that failed; empty when none has. The text is the library's and stays until
 * the thread's next failure.
 */
const char *vjepa_last_error(void);

/**
 * Classifies one clip: `num_frames` frames one behind the other, each `height` by `width` pixels of interleaved RGB bytes,
 * `frames_size` bytes in all. The most probable classes, at most `room`, come to `predictions`, the most probable first;
 * `*count` is how many. Frames are resized, cropped and scaled as in training; which frames of a video belong in a clip
 * says `vjepa_frame_offsets`.
 */
int32_t vjepa_classify(const struct vjepa_session *session,
                       const uint8_t *frames,
                       size_t frames_size,
                       size_t num_frames,
                       size_t height,
                       size_t width,
                       struct vjepa_prediction *predictions,
                       size_t room,
                       size_t *count);

/**
 * Prepares one clip for `vjepa_run`: f32 [3, T, S, S], row-major, at `clip`, which has room for `room` values. Frames are
 * given as to `vjepa_classify`.
 */
int32_t vjepa_prepare(const struct vjepa_session *session,
                      const uint8_t *frames,
                      size_t frames_size,
                      size_t num_frames,
                      size_t height,
                      size_t width,
                      float *clip,
                      size_t room);

/**
 * Runs a batch of prepared clips, f32 [B, 3, T, H, W] row-major, `count` values in all; `shape` has the five sizes. The
 * results come to `*outputs`, which is null when this fails.
 */
int32_t vjepa_run(const struct vjepa_session *session,
                  const float *clips,
                  size_t count,
                  const size_t *shape,
                  struct vjepa_outputs **outputs);

/**
 * Frees results; null is nothing to free.
 */
void vjepa_outputs_free(struct vjepa_outputs *outputs);

/**
 * How many results there are.
 */
size_t vjepa_outputs_count(const struct vjepa_outputs *outputs);

/**
 * Name of a result ("logits"); null when there is no such one. The text, as all below, belongs to the results.
 */
const char *vjepa_outputs_name(const struct vjepa_outputs *outputs,
                               size_t index);

/**
 * Number of a result's dimensions; 0 when there is no such one.
 */
size_t vjepa_outputs_rank(const struct vjepa_outputs *outputs, size_t index);

/**
 * A result's dimensions, `vjepa_outputs_rank` of them; null when there is no such one.
 */
const size_t *vjepa_outputs_shape(const struct vjepa_outputs *outputs, size_t index);

/**
 * Number of a result's values, the product of its dimensions; 0 when there is no such one.
 */
size_t vjepa_outputs_size(const struct vjepa_outputs *outputs, size_t index);

/**
 * A result's values, row-major, `vjepa_outputs_size` of them; null when there is no such one.
 */
const float *vjepa_outputs_values(const struct vjepa_outputs *outputs, size_t index);

/**
 * Opens a model, an ONNX file as `vjepa compile --export onnx` writes it, and puts it at `*session`.
 *
 * `runtime`: "tract", "ort", "cuda", "tensorrt" or "auto"; null is "auto". `ort_library`: ONNX Runtime's shared library;
 * null searches the usual places, and a process can use one only. `threads`: 0 is one for tract, and for ONNX Runtime as
 * many as it finds cores, within the process's CPU limits. When this fails `*session` is null. "auto" is tract; a model
 * that tract cannot load runs on ONNX Runtime where it is installed, and `vjepa_runtime` says which it is.
 */
int32_t vjepa_open(const char *path,
                   const char *runtime,
                   const char *ort_library,
                   size_t threads,
                   struct vjepa_session **session);

/**
 * Frees a session; null is nothing to free. In a child made by fork() a session of the parent is left as it is.
 */
void vjepa_close(struct vjepa_session *session);

/**
 * What runs the model, with its version: "tract (1 thread)". Null when `session` is null; else the session's.
 */
const char *vjepa_runtime(const struct vjepa_session *session);

/**
 * Frames of a clip; 0 when the model does not say how clips are prepared.
 */
size_t vjepa_num_frames(const struct vjepa_session *session);

/**
 * Side of a prepared clip in pixels, its height where it is not square; 0 when the model does not say how clips are prepared.
 */
size_t vjepa_crop_size(const struct vjepa_session *session);

/**
 * Width of a prepared clip in pixels; 0 when the model does not say how clips are prepared.
 */
size_t vjepa_crop_width(const struct vjepa_session *session);

/**
 * Which frames of a video make a clip: counted from the clip's first one, `vjepa_num_frames` numbers, ascending, at
 * `offsets`, which has room for `room`.
 */
int32_t vjepa_frame_offsets(const struct vjepa_session *session,
                            size_t *offsets,
                            size_t room);

/**
 * The five sizes of a batch of prepared clips, [B, 3, T, H, W], at `shape`; 0 for one that is chosen at each run.
 */
int32_t vjepa_input_shape(const struct vjepa_session *session,
                          size_t *shape);

/**
 * Clips that the model averages for one result, 1 for most; `vjepa_run` takes as many for each. 0 when `session` is null.
 */
size_t vjepa_views(const struct vjepa_session *session);

/**
 * How many classes have names.
 */
size_t vjepa_label_count(const struct vjepa_session *session);

/**
 * The name of a class, in UTF-8; null when it has none. The text is the session's.
 */
const char *vjepa_label(const struct vjepa_session *session, size_t class_index);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VJEPA_H */
