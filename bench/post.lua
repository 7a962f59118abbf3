-- What wrk sends, and the figures it prints: one line of JSON, times in microseconds.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["x-goog-api-key"] = "PLACEHOLDER_GEMINI_TOKEN"
wrk.body = [[{"contents": [{"role": "user", "parts": [{"text": "Which line of the poem comes after the one that ]]
  .. [[says that all that is gold does not glitter?"}]}], "generationConfig": {"temperature": 0.7}}]]

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{"answers": %d, "duration": %d, "p50": %d, "p99": %d, "errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
