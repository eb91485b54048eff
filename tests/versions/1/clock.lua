-- Ahead of every script: the bus's clock, which is its epoch, the offset behind which that began, and the greatest offset
-- given. They are one key, so that they are lost together. Offsets are microseconds of the server's clock that never go back; below 2^53, so numbers hold them.
local prefix, database = ARGV[1], ARGV[2]

local function digits(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local clock = redis.call('HMGET', prefix .. ':clock', 'epoch', 'start', 'last')
local epoch, start, last = clock[1], tonumber(clock[2]), tonumber(clock[3])
if not start or not last then
  epoch = false
end

local function set_last(offset)
  last = offset
  redis.call('HSET', prefix .. ':clock', 'last', digits(offset))
end

-- What was known is lost, or may be: positions of another epoch stand for nothing from now on, and all that come are greater
-- than those that somebody has seen.
local function begin_epoch(fresh, seen)
  epoch, start = fresh, math.max(last or 0, seen, now)
  redis.call('HSET', prefix .. ':clock', 'epoch', epoch, 'start', digits(start))
  set_last(start)
end

-- The offset of a channel's last event. What is not known any more is older than `sure` microseconds.
local function pointer(channel, sure)
  return tonumber(redis.call('GET', prefix .. ':l:' .. channel)) or now - sure
end

-- Of an entry that is ours: the offset of the event before it in its channel, and its text.
local function fields(entry)
  local by_name = {}
  for field = 1, #entry[2], 2 do
    by_name[entry[2][field]] = entry[2][field + 1]
  end
  return tonumber(by_name.p), by_name.e
end
