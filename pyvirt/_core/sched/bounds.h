/* Bounds that do not fit in an enum of C. */
#ifndef PYVIRT_SCHED_BOUNDS_H
#define PYVIRT_SCHED_BOUNDS_H

#include <stdint.h>

#define SPREAD ((int64_t)1 << 43)           /* of the ranks in a queue: keys have 44 bits for them */
#define MOST_SLICE (((int64_t)1 << 32) - 1) /* ns: of weight 1, half of SPREAD in virtual time */
#define MOST_TIMESLICE ((int64_t)1 << 52)   /* ns: of plug-in policies */
#define MOST_REMAIN ((int64_t)1 << 42)
#define NEVER INT64_MAX
#define MOST_TIME ((int64_t)1 << 61)
#define DUE_HORIZON ((int64_t)1 << 53)      /* keys of CPU events have 54 bits for times */
#define TIMER_HORIZON ((int64_t)1 << 43)    /* and those of timers 44 */

#endif
