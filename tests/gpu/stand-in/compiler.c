/* A stand-in for NVRTC that compiles kernels for the processor: what CubeCL prints is C++, and device.h has the rest. The "PTX" that it
 * returns names the library that it made, which driver.c opens.
 *
 * STAND_IN_KERNELS names a folder for sources and libraries, where what has been compiled once is found again; STAND_IN_HEADERS that of
 * device.h.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum { SUCCESS = 0, OUT_OF_MEMORY = 1, INVALID_INPUT = 3, COMPILATION = 6 };
struct program { char *source, name[256], text[4608], log[4608]; };

API int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return SUCCESS; }
API const char *nvrtcGetErrorString(int error) { return error ? "refused by the stand-in compiler" : "no error"; }

API int nvrtcCreateProgram(void **handle, const char *source, const char *name, int count, const char *const *headers,
                           const char *const *names) {
    (void)name; (void)count; (void)headers; (void)names;
    struct program *program = calloc(1, sizeof *program);
    if (!program || !(program->source = strdup(source))) return OUT_OF_MEMORY;
    *handle = program;
    return SUCCESS;
}

API int nvrtcDestroyProgram(void **handle) {
    struct program *program = *handle;
    free(program->source);
    free(program);
    return SUCCESS;
}

/* FNV-1a. */
static uint64_t hash(const char *text) {
    uint64_t value = 0xcbf29ce484222325;
    for (; *text; text++) value = (value ^ (unsigned char)*text) * 0x100000001b3;
    return value;
}

/* Whether a line gives an integer of a certain size its name, which the processor's headers do. */
static int is_known(const char *line) {
    size_t length = strcspn(line, "\n");
    return !strncmp(line, "typedef ", 8) && length > 4 && !strncmp(line + length - 3, "_t;", 3) && memchr(line, '{', length) == NULL;
}

/* The source with the processor's headers, shared memory where the block has it, and a way to call the kernel. */
static int translate(struct program *program, FILE *to) {
    const char *at = strstr(program->source, "__launch_bounds__");
    at = at ? strchr(at, ')') : NULL;
    if (!at) return INVALID_INPUT;
    at += 1 + strspn(at + 1, " ");
    snprintf(program->name, sizeof program->name, "%.*s", (int)strcspn(at, "( "), at);
    fputs("#include \"device.h\"\n", to);
    const char *rest = program->source;
    while (*rest) {
        static const char shared[] = "extern __shared__ __align__(", include[] = "#include <";
        const char *type = strncmp(rest, shared, sizeof shared - 1) ? NULL : strstr(rest, ") char ");
        if (type) {
            rest = type + strlen(") char ");
            int length = (int)strcspn(rest, "[");
            fprintf(to, "char *const %.*s = stand_in->shared;", length, rest);
            rest += length + strlen("[];");
        } else if (!strncmp(rest, include, sizeof include - 1) || is_known(rest)) {
            rest += strcspn(rest, "\n");
        } else {
            fputc(*rest++, to);
        }
    }
    int waits = strstr(program->source, "_sync") || strstr(program->source, "__sync");
    fprintf(to, "\nextern \"C\" __attribute__((visibility(\"default\"))) void stand_in_call(void **arguments) { call(%s, arguments); }\n",
            program->name);
    fprintf(to, "extern \"C\" __attribute__((visibility(\"default\"))) const int stand_in_waits = %d;\n", waits);
    return SUCCESS;
}

API int nvrtcCompileProgram(void *handle, int count, const char *const *options) {
    struct program *program = handle;
    const char *folder = getenv("STAND_IN_KERNELS"), *headers = getenv("STAND_IN_HEADERS"), *arch = "sm_90a";
    if (!folder || !headers) {
        snprintf(program->log, sizeof program->log, "STAND_IN_KERNELS and STAND_IN_HEADERS name the folders of kernels and of device.h");
        return COMPILATION;
    }
    for (int i = 0; i < count; i++)
        if (!strncmp(options[i], "--gpu-architecture=", 19)) arch = options[i] + 19;
    char stem[2048], made[2100], source[2100], command[16384];
    snprintf(stem, sizeof stem, "%s/%016llx", folder, (unsigned long long)hash(program->source));
    snprintf(made, sizeof made, "%s.so", stem);
    snprintf(source, sizeof source, "%s.%d.cc", stem, (int)getpid());
    FILE *file = fopen(source, "w");
    int said = file ? translate(program, file) : COMPILATION;
    if (!file || fclose(file) || said) {
        snprintf(program->log, sizeof program->log, "%s cannot be written, or is no kernel", source);
        return COMPILATION;
    }
    /* Not fused: where a device fuses is its compiler's choice. */
    snprintf(command, sizeof command,
             "c++ -std=c++17 -O2 -w -fPIC -shared -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing -I'%s' -o '%s.%d.so' '%s' 2> '%s.log'"
             " && mv '%s.%d.so' '%s' && mv '%s' '%s.cc'",
             headers, stem, (int)getpid(), source, stem, stem, (int)getpid(), made, source, stem);
    if (access(made, R_OK) == 0) {
        remove(source);
    } else if (system(command) != 0) {
        snprintf(program->log, sizeof program->log, "%s does not compile: see %s.log", program->name, stem);
        return COMPILATION;
    }
    snprintf(program->text, sizeof program->text, ".target %s\n.entry %s(\n// library %s\n", arch, program->name, made);
    return SUCCESS;
}

API int nvrtcGetPTXSize(void *handle, size_t *bytes) { *bytes = strlen(((struct program *)handle)->text) + 1; return SUCCESS; }
API int nvrtcGetPTX(void *handle, char *to) { strcpy(to, ((struct program *)handle)->text); return SUCCESS; }
API int nvrtcGetProgramLogSize(void *handle, size_t *bytes) { *bytes = strlen(((struct program *)handle)->log) + 1; return SUCCESS; }
API int nvrtcGetProgramLog(void *handle, char *to) { strcpy(to, ((struct program *)handle)->log); return SUCCESS; }
