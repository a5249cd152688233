//! Subsets: the properties of the choice, and what a balancer makes of it.

mod support;

#[path = "subset/balance.rs"]
mod balance;
#[path = "subset/loops.rs"]
mod loops;
#[path = "subset/processes.rs"]
mod processes;
