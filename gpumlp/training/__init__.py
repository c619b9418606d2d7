"""Time: steps, epochs, schedules, what is watched and what is written down."""
