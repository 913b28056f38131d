-- Asks for every line of a file in turn, and ends with one line of JSON for bench/load.py.
-- A line is a path, or a path, a tab and the JSON document that is posted there. What follows the file are headers.
-- wrk's errors.status counts answers above 399; the servers under test redirect nothing.

local requests = {}
local position = 0

function init(args)
  for index = 2, #args do
    local name, value = args[index]:match("^([^:]+): (.+)$")
    wrk.headers[name] = value
  end
  local posted = {["Content-Type"] = "application/json"}
  for name, value in pairs(wrk.headers) do
    posted[name] = value
  end
  for line in io.lines(args[1]) do
    local path, document = line:match("^([^\t]+)\t(.+)$")
    if path then
      requests[#requests + 1] = wrk.format("POST", path, posted, document)
    else
      requests[#requests + 1] = wrk.format("GET", line)
    end
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
