// Quantizes a GGUF with llama.cpp's own quantizer and prints the seconds that it took.
// usage: quantize SOURCE.gguf OUT.gguf FILE_TYPE_NUMBER THREADS
#include "llama.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

int main(int argc, char ** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: quantize SOURCE.gguf OUT.gguf FILE_TYPE_NUMBER THREADS\n");
        return 2;
    }
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
    }, nullptr);
    llama_backend_init();
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = static_cast<llama_ftype>(std::atoi(argv[3]));
    params.nthread = std::atoi(argv[4]);
    const auto start = std::chrono::steady_clock::now();
    if (llama_model_quantize(argv[1], argv[2], &params) != 0) return 1;
    std::printf("%.3f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    return 0;
}
