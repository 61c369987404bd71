"""The daemon: joins the stages, and reports to systemd and the operator."""
