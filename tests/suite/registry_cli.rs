//! `reg` and `check` on bare hives and images, through the command line.
