//! Flow files, planner, runner, reports and the command line, as a library.
