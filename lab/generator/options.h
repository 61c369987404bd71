#ifndef NETOBS_TRAFFIC_OPTIONS_H
#define NETOBS_TRAFFIC_OPTIONS_H

#include "plan.h"

/* Fills `plan` from the command line; on a mistake says which option and what was expected, and exits with 2. */
void options_parse(struct plan *plan, int argc, char **argv);

#endif
