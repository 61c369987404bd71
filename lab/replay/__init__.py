"""The replay tool: capture files go through an interface that the daemon measures, and its flows are compared with an
independent reckoning, written from the RFCs and the manual pages alone. It shares nothing with the parser in bpf/."""
