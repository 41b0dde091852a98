// Renders conversations by the chat template of a GGUF file, in both ways that llama.cpp has.
//
//     chat MODEL.gguf CONVERSATIONS OUT
//
// CONVERSATIONS is a list of texts, each with a NUL behind it: `0` or `1` (whether an answer is to be begun), the number of messages, then
// role and content of each; and so on to the end of the file. OUT gets, for each conversation, two texts in the same form: what
// llama_chat_apply_template makes of it, which looks for substrings and knows no Jinja, and what llama.cpp's Jinja engine does, which
// llama-server uses. A text that begins with byte 1 says why there is none.
#include "llama.h"

#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"

#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace {

struct conversation {
    bool begin_answer = false;
    std::vector<std::pair<std::string, std::string>> messages;
};

int fail(const std::string & message) {
    std::fprintf(stderr, "chat: %s\n", message.c_str());
    return 1;
}

std::vector<std::string> read_texts(const char * path) {
    std::ifstream file(path, std::ios::binary);
    const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    std::vector<std::string> texts;
    for (size_t at = 0; at < all.size();) {
        const size_t end = std::min(all.find('\0', at), all.size());
        texts.push_back(all.substr(at, end - at));
        at = end + 1;
    }
    return texts;
}

bool read_conversations(const std::vector<std::string> & texts, std::vector<conversation> & out) {
    for (size_t at = 0; at < texts.size();) {
        if (at + 2 > texts.size()) {
            return false;
        }
        conversation next;
        next.begin_answer = texts[at] == "1";
        const size_t count = std::stoul(texts[at + 1]);
        at += 2;
        if (count > (texts.size() - at) / 2) {
            return false;
        }
        for (size_t i = 0; i < count; i++, at += 2) {
            next.messages.emplace_back(texts[at], texts[at + 1]);
        }
        out.push_back(next);
    }
    return true;
}

std::string by_c_api(const char * chat_template, const conversation & conversation) {
    std::vector<llama_chat_message> messages;
    for (const auto & [role, content] : conversation.messages) {
        messages.push_back({role.c_str(), content.c_str()});
    }
    const int32_t length = llama_chat_apply_template(chat_template, messages.data(), messages.size(), conversation.begin_answer, nullptr, 0);
    if (length < 0) {
        return "\1llama_chat_apply_template returns " + std::to_string(length);
    }
    std::vector<char> buffer(static_cast<size_t>(length) + 1);
    llama_chat_apply_template(chat_template, messages.data(), messages.size(), conversation.begin_answer, buffer.data(), length);
    return std::string(buffer.data(), static_cast<size_t>(length));
}

std::string by_jinja(const char * chat_template, const conversation & conversation) {
    try {
        jinja::lexer lexer;
        jinja::program program = jinja::parse_from_tokens(lexer.tokenize(chat_template));
        jinja::context context(chat_template);
        auto messages = jinja::mk_val<jinja::value_array>();
        for (const auto & [role, content] : conversation.messages) {
            auto message = jinja::mk_val<jinja::value_object>();
            message->insert("role", jinja::mk_val<jinja::value_string>(role));
            message->insert("content", jinja::mk_val<jinja::value_string>(content));
            messages->push_back(message);
        }
        context.set_val("messages", messages);
        // Runtimes put the beginning of the text before the prompt by themselves, if at all: RWKV has none.
        context.set_val("bos_token", jinja::mk_val<jinja::value_string>(std::string()));
        if (conversation.begin_answer) {
            context.set_val("add_generation_prompt", jinja::mk_val<jinja::value_bool>(true));
        }
        jinja::runtime runtime(context);
        return jinja::runtime::gather_string_parts(runtime.execute(program))->as_string().str();
    } catch (const std::exception & error) {
        return std::string("\1the Jinja engine: ") + error.what();
    }
}

void no_log(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        std::fputs(text, stderr);
    }
}

}  // namespace

int main(int argc, char ** argv) {
    if (argc != 4) {
        return fail("usage: chat MODEL.gguf CONVERSATIONS OUT");
    }
    llama_log_set(no_log, nullptr);
    llama_backend_init();
    std::vector<conversation> conversations;
    if (!read_conversations(read_texts(argv[2]), conversations)) {
        return fail(std::string(argv[2]) + " is no list of conversations");
    }
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    std::unique_ptr<llama_model, decltype(&llama_model_free)> model(llama_model_load_from_file(argv[1], params), llama_model_free);
    if (!model) {
        return fail(std::string("libllama does not load ") + argv[1]);
    }
    const char * chat_template = llama_model_chat_template(model.get(), nullptr);
    if (!chat_template) {
        return fail(std::string("no chat template in ") + argv[1]);
    }
    std::ofstream out(argv[3], std::ios::binary);
    for (const conversation & conversation : conversations) {
        for (const std::string & text : {by_c_api(chat_template, conversation), by_jinja(chat_template, conversation)}) {
            out.write(text.c_str(), static_cast<std::streamsize>(text.size() + 1));
        }
    }
    out.close();
    return out ? 0 : fail(std::string("cannot write ") + argv[3]);
}
