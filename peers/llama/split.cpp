// What llama.cpp's gguf-split, which is compiled along with this, takes from a library of its programs: what it is called. Nothing that
// is compared depends on it.
const char * llama_version() { return "peers"; }
int llama_build_number() { return 0; }
const char * llama_commit() { return "unknown"; }
const char * llama_compiler() { return "unknown"; }
const char * llama_build_target() { return "unknown"; }
