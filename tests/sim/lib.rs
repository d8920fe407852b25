//! The simulation is a test; there is nothing here to link.
