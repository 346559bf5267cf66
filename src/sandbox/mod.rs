//! The embedded emulator.
