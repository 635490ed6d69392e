"""What operators do by hand: look at dead letters, replay or discard them, announce again, trace a job."""
