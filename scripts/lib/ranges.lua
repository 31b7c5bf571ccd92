-- For wrk: ranges of one file, at random; counts the answers itself, since wrk rounds what it prints.
local bytes = tonumber(os.getenv("RANGE_BYTES"))
local ranges = tonumber(os.getenv("RANGES"))
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init()
    answers = 0
    errors = 0
end

function request()
    local first = math.random(0, ranges - 1) * bytes
    return wrk.format("GET", nil, { Range = string.format("bytes=%d-%d", first, first + bytes - 1) })
end

function response(status)
    if status == 206 then
        answers = answers + 1
    else
        errors = errors + 1
    end
end

function done()
    local good, bad = 0, 0
    for _, thread in ipairs(threads) do
        good = good + thread:get("answers")
        bad = bad + thread:get("errors")
    end
    print(string.format("answers %d errors %d", good, bad))
end
