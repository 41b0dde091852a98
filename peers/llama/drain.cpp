// Loaded into llama-perplexity (LD_PRELOAD): waits a little when the program ends. It prints through a thread that it does not wait
// for itself, so that the last lines, which are the results, are else lost now and then.
#include <unistd.h>

__attribute__((destructor)) static void drain() {
    usleep(300 * 1000);
}
