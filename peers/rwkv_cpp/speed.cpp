// Tokens a second of rwkv.cpp: speed MODEL.bin THREADS TOKENS REPEAT PROMPT...
// Prints the median of decoding and of each prompt. The first round does not count. Prompts are evaluated in chunks of 16
// tokens, which is what rwkv.cpp's own programs use.
#include <rwkv.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t count = values.size();
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

int main(int argc, char ** argv) {
    if (argc < 5) {
        std::fprintf(stderr, "usage: speed MODEL.bin THREADS TOKENS REPEAT PROMPT...\n");
        return 2;
    }
    rwkv_context * context = rwkv_init_from_file(argv[1], std::atoi(argv[2]), 0);
    if (!context) {
        std::fprintf(stderr, "rwkv.cpp cannot load %s\n", argv[1]);
        return 1;
    }
    const size_t tokens = std::atoi(argv[3]), repeat = std::atoi(argv[4]);
    std::vector<float> state(rwkv_get_state_len(context)), logits(rwkv_get_logits_len(context));
    uint64_t random = 1;
    const auto next = [&] {
        random = random * 6364136223846793005u + 1442695040888963407u;
        return uint32_t((random >> 33) % logits.size());
    };
    const auto seconds_of = [&](auto && work) {
        rwkv_init_state(context, state.data());
        const auto begun = std::chrono::steady_clock::now();
        if (!work()) {
            std::fprintf(stderr, "rwkv.cpp cannot evaluate %s\n", argv[1]);
            std::exit(1);
        }
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    };
    std::vector<std::vector<double>> rates(argc - 4);
    for (size_t round = 0; round <= repeat; round++) {
        std::vector<double> measured;
        measured.push_back(tokens / seconds_of([&] {
            for (size_t i = 0; i < tokens; i++) {
                if (!rwkv_eval(context, next(), state.data(), state.data(), logits.data())) {
                    return false;
                }
            }
            return true;
        }));
        for (int i = 5; i < argc; i++) {
            std::vector<uint32_t> prompt(std::atoi(argv[i]));
            std::generate(prompt.begin(), prompt.end(), next);
            measured.push_back(prompt.size() / seconds_of([&] {
                return rwkv_eval_sequence_in_chunks(context, prompt.data(), prompt.size(), 16, state.data(), state.data(), logits.data());
            }));
        }
        for (size_t i = 0; round > 0 && i < measured.size(); i++) {
            rates[i].push_back(measured[i]);
        }
    }
    for (const auto & values : rates) {
        std::printf("%.3f ", median(values));
    }
    std::printf("\n");
    rwkv_free(context);
}
