/* Edge counts of code compiled with gcc's -fsanitize-coverage=trace-pc, for engine.py.
   Preloaded ahead of libasan, which has an empty function of the same name. */
#include <stdint.h>

unsigned char pv_edges[1 << 16];
static __thread unsigned before;

void __sanitizer_cov_trace_pc(void)
{
    uint64_t pc = (uint64_t)(uintptr_t)__builtin_return_address(0);
    unsigned here = (unsigned)(pc * UINT64_C(0x9E3779B97F4A7C15) >> 48);
    unsigned char *count = &pv_edges[here ^ before];

    *count += *count < 255;
    before = here >> 1;
}
