-- Appends events, all or none, and tells whoever listens; remembers that it did under the call's id.
-- ARGV: prefix, database, a fresh epoch, sure (µs), the greatest offset seen; `first`, `again` or `look`, id, the epoch that the
-- first call expected, how long the id is remembered (ms), history_age (ms), how long a pointer is kept (ms), number of
-- channels; name and history of each; then for each event the number of its channel and its text.
local sure, seen, mode, outcome = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], prefix .. ':i:' .. ARGV[7]
local age, count = tonumber(ARGV[10]), tonumber(ARGV[12])

-- A call that was given up may arrive after the one that took its place.
local known = redis.call('GET', outcome)
if known then
  return known
end
-- Where it may have been forgotten, another attempt could be the second that succeeds.
if mode == 'look' or (mode == 'again' and epoch ~= ARGV[8]) then
  return ''
end
if not epoch then
  begin_epoch(ARGV[3], seen)
end

local channels = {}
for number = 1, count do
  local name = ARGV[11 + 2 * number]
  channels[number] = {
    name = name,
    history = tonumber(ARGV[12 + 2 * number]),
    stream = prefix .. ':s:' .. name,
    last = pointer(name, sure),
    told = {},
    bytes = 0,
  }
end

-- Somebody else has written into the stream: what stands above our last entry goes, and if that does not help, all of it.
-- Readers notice both by `p`.
local function clear(channel)
  local own = digits(channel.last) .. '-0'
  local foreign = redis.pcall('XRANGE', channel.stream, '(' .. own, '+', 'COUNT', 1000)
  if not foreign.err then
    for _, entry in ipairs(foreign) do
      redis.call('XDEL', channel.stream, entry[1])
    end
    local set = redis.pcall('XSETID', channel.stream, own)
    if not set.err then
      return
    end
  end
  redis.call('DEL', channel.stream)
end

local function is_theirs(problem)
  return string.find(problem, 'equal or smaller') or string.find(problem, 'exhausted') or string.find(problem, 'WRONGTYPE')
end

local function append(channel, offset, text)
  local function add()
    local id = digits(offset) .. '-0'
    return redis.pcall('XADD', channel.stream, 'MAXLEN', channel.history, id, 'p', digits(channel.last), 'e', text)
  end
  local added = add()
  for attempt = 1, 2 do
    if type(added) ~= 'table' or not added.err then
      return
    end
    if not is_theirs(added.err) then
      error(added.err)
    end
    if attempt == 1 then
      clear(channel)
    else
      redis.call('DEL', channel.stream)
    end
    added = add()
  end
  if type(added) == 'table' and added.err then
    error(added.err)
  end
end

local function tell(channel)
  if #channel.told > 0 then
    local name = prefix .. ':' .. database .. ':e:' .. channel.name
    redis.call('PUBLISH', name, epoch .. '\n' .. table.concat(channel.told, '\n'))
    channel.told, channel.bytes = {}, 0
  end
end

local offset = math.max(last, now - 1)
for event = 13 + 2 * count, #ARGV, 2 do
  local channel, text = channels[tonumber(ARGV[event])], ARGV[event + 1]
  offset = offset + 1
  if channel.history > 0 then
    append(channel, offset, text)
  end
  channel.told[#channel.told + 1] = digits(offset) .. ' ' .. digits(channel.last) .. ' ' .. text
  channel.bytes = channel.bytes + #text
  channel.last = offset
  -- A listener must never be sent so much at once that the server gives it up.
  if channel.bytes > 524288 then
    tell(channel)
  end
end

for _, channel in ipairs(channels) do
  redis.call('SET', prefix .. ':l:' .. channel.name, digits(channel.last), 'PX', ARGV[11])
  if channel.history > 0 then
    redis.call('XTRIM', channel.stream, 'MINID', digits(now - age * 1000))
    redis.call('PEXPIRE', channel.stream, age)
  end
end
set_last(offset)
local done = epoch .. ' ' .. digits(offset)
redis.call('SET', outcome, done, 'PX', ARGV[9])
for _, channel in ipairs(channels) do
  tell(channel)
end
return done
