/* Classifies the first clip of raw RGB frames: classify MODEL FRAMES.rgb HEIGHT WIDTH
 *
 *   ffmpeg -i clip.mp4 -f rawvideo -pix_fmt rgb24 clip.rgb
 *   cc -I include examples/classify.c -L ../target/edge -lvjepa_capi -Wl,-rpath,../target/edge -o classify */
#include <stdio.h>
#include <stdlib.h>
#include <vjepa.h>

static int failed(const char *what) {
    fprintf(stderr, "error: %s\n", what);
    return 1;
}

/* Reads the frames that make a clip; null when the file cannot be read or is too short. */
static uint8_t *read_clip(const char *path, const size_t *offsets, size_t count, size_t frame) {
    FILE *file = fopen(path, "rb");
    uint8_t *pixels = malloc(count * frame);
    int good = file != NULL && pixels != NULL;
    for (size_t i = 0; good && i < count; i++) {
        good = fseek(file, (long)(offsets[i] * frame), SEEK_SET) == 0 && fread(pixels + i * frame, 1, frame, file) == frame;
    }
    if (file != NULL) fclose(file);
    if (!good) {
        free(pixels);
        return NULL;
    }
    return pixels;
}

static int classify(const vjepa_session *session, const char *path, size_t height, size_t width) {
    size_t frames = vjepa_num_frames(session), frame = height * width * 3, found = 0;
    size_t *offsets = malloc(frames * sizeof *offsets);
    if (frames == 0 || offsets == NULL || vjepa_frame_offsets(session, offsets, frames) != VJEPA_OK) {
        free(offsets);
        return failed(vjepa_last_error());
    }
    uint8_t *pixels = read_clip(path, offsets, frames, frame);
    free(offsets);
    if (pixels == NULL) return failed("the file cannot be read or holds too few frames of that size");
    vjepa_prediction best[5];
    int status = vjepa_classify(session, pixels, frames * frame, frames, height, width, best, 5, &found);
    free(pixels);
    if (status != VJEPA_OK) return failed(vjepa_last_error());
    for (size_t i = 0; i < found; i++) {
        printf("%6.2f %%  %s\n", 100 * best[i].probability, best[i].label ? best[i].label : "?");
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) return failed("usage: classify MODEL FRAMES.rgb HEIGHT WIDTH");
    if (vjepa_abi_version() != VJEPA_ABI_VERSION) return failed("the library is of another version than vjepa.h");
    vjepa_session *session = NULL;
    if (vjepa_open(argv[1], NULL, NULL, 0, &session) != VJEPA_OK) return failed(vjepa_last_error());
    int status = classify(session, argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10));
    vjepa_close(session);
    return status;
}
