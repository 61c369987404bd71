"""The daemon: joins the stages, and tells systemd and the operator how they do."""
