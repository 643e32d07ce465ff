"""Topic-based Subscriptions on R4: topics, matching, a numbered event log, delivery channels."""
