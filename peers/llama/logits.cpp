// Logits of every token through libllama, one token at a time from the empty state, or from one that a file holds.
//
//     logits MODEL.gguf TOKENS.json OUT.f32 [default|plain [session|sequence FILE]]
//     logits --tokenize MODEL.gguf TEXT
//
// TOKENS.json is a JSON array of token ids. OUT.f32 gets float32 [tokens, vocabulary] in the machine's byte order,
// and one line of JSON on stdout says both sizes. `plain` keeps the matrices as the file has them; without it ggml may
// rearrange them for the processor (AMX and others), as it does for everybody by default. `session` and `sequence` name a file that
// llama_state_load_file or llama_state_seq_load_file loads first. With --tokenize the ids of the file TEXT by the model's own
// vocabulary go to stdout as a JSON array.
#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace {

int fail(const std::string & message) {
    std::fprintf(stderr, "logits: %s\n", message.c_str());
    return 1;
}

std::string read_file(const char * path) {
    std::ifstream file(path, std::ios::binary);
    return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

// Runs of digits are the ids; an array of plain integers has nothing else to read.
bool read_tokens(const char * path, std::vector<llama_token> & tokens) {
    const std::string text = read_file(path);
    if (text.find_first_not_of("[], \n\r\t0123456789") != std::string::npos) {
        return false;
    }
    for (size_t at = text.find_first_of("0123456789"); at != std::string::npos; at = text.find_first_of("0123456789", at)) {
        const size_t end = std::min(text.find_first_not_of("0123456789", at), text.size());
        tokens.push_back(static_cast<llama_token>(std::strtol(text.substr(at, end - at).c_str(), nullptr, 10)));
        at = end;
    }
    return !tokens.empty();
}

void warnings_only(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) {
        std::fputs(text, stderr);
    }
}

using model_ptr = std::unique_ptr<llama_model, decltype(&llama_model_free)>;

model_ptr load(const char * path, bool vocabulary_only, bool plain) {
    llama_model_params params = llama_model_default_params();
    params.vocab_only = vocabulary_only;
    params.use_extra_bufts = !plain;
    return model_ptr(llama_model_load_from_file(path, params), llama_model_free);
}

int tokenize(const char * path, const char * text_path) {
    const model_ptr model = load(path, true, true);
    if (!model) {
        return fail(std::string("libllama does not load ") + path);
    }
    const std::string text = read_file(text_path);
    std::vector<llama_token> tokens(text.size() + 1);
    const int count = llama_tokenize(llama_model_get_vocab(model.get()), text.data(), static_cast<int32_t>(text.size()),
                                     tokens.data(), static_cast<int32_t>(tokens.size()), false, false);
    if (count <= 0) {
        return fail(std::string("no tokens of ") + text_path);
    }
    for (int i = 0; i < count; i++) {
        std::printf("%c%d", i == 0 ? '[' : ',', tokens[static_cast<size_t>(i)]);
    }
    std::printf("]\n");
    return 0;
}

// Loads a state that has read no tokens.
bool load_state(llama_context * context, const std::string & kind, const char * path) {
    std::vector<llama_token> tokens(1);
    size_t count = 0;
    if (kind == "session") {
        return llama_state_load_file(context, path, tokens.data(), tokens.size(), &count) && count == 0;
    }
    return llama_state_seq_load_file(context, path, 0, tokens.data(), tokens.size(), &count) != 0 && count == 0;
}

}  // namespace

int main(int argc, char ** argv) {
    if (argc < 4) {
        return fail("usage: logits MODEL.gguf TOKENS.json OUT.f32 [default|plain [session|sequence FILE]] | logits --tokenize MODEL.gguf TEXT");
    }
    llama_log_set(warnings_only, nullptr);
    llama_backend_init();
    if (std::string(argv[1]) == "--tokenize") {
        return tokenize(argv[2], argv[3]);
    }
    std::vector<llama_token> tokens;
    if (!read_tokens(argv[2], tokens)) {
        return fail(std::string(argv[2]) + " is no JSON array of token ids");
    }
    const model_ptr model = load(argv[1], false, argc > 4 && std::string(argv[4]) == "plain");
    if (!model) {
        return fail(std::string("libllama does not load ") + argv[1]);
    }
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<uint32_t>(tokens.size()) + 8;
    params.n_batch = params.n_ubatch = 1;
    params.n_threads = params.n_threads_batch = 1;
    std::unique_ptr<llama_context, decltype(&llama_free)> context(llama_init_from_model(model.get(), params), llama_free);
    if (!context) {
        return fail("libllama makes no context");
    }
    if (argc > 6 && !load_state(context.get(), argv[5], argv[6])) {
        return fail(std::string("libllama does not load the state in ") + argv[6]);
    }
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
    std::ofstream out(argv[3], std::ios::binary);
    for (llama_token & token : tokens) {
        if (token < 0 || token >= vocabulary) {
            return fail("token " + std::to_string(token) + " is not in the vocabulary");
        }
        if (llama_decode(context.get(), llama_batch_get_one(&token, 1)) != 0) {
            return fail("llama_decode failed");
        }
        const float * logits = llama_get_logits_ith(context.get(), -1);
        out.write(reinterpret_cast<const char *>(logits), static_cast<std::streamsize>(sizeof(float)) * vocabulary);
    }
    out.close();
    if (!out) {
        return fail(std::string("cannot write ") + argv[3]);
    }
    std::printf("{\"tokens\": %zu, \"vocabulary\": %d}\n", tokens.size(), vocabulary);
    return 0;
}
