-- Whether the bus is what it was: finds or makes the epoch, and begins another where the last event that the caller has seen
-- is lost. Tells it to the caller's own pub/sub channel too, behind all that was published before.
-- ARGV: prefix, database, a fresh epoch, sure (µs); the caller's epoch, channel and offset seen; pub/sub channel or ''.
local fresh, sure = ARGV[3], tonumber(ARGV[4])
local seen_epoch, channel, seen = ARGV[5], ARGV[6], tonumber(ARGV[7])

local function is_lost()
  if last < seen then
    return true
  end
  local pointer = tonumber(redis.call('GET', prefix .. ':l:' .. channel))
  if not pointer then
    return seen > now - sure
  end
  if pointer <= seen then
    return pointer < seen
  end
  -- Later ones were appended behind it, or where it was: the first of them knows which event it followed.
  local stream = prefix .. ':s:' .. channel
  local entry = redis.call('XRANGE', stream, digits(seen), '+', 'COUNT', 1)[1]
  local before = entry and entry[1] ~= digits(seen) .. '-0' and fields(entry)
  return before and before < seen
end

if not epoch or (epoch == seen_epoch and seen > 0 and is_lost()) then
  begin_epoch(fresh, seen)
elseif last < seen then
  -- Seen in another epoch, by a clock that was ahead: whoever saw it ignores what is not greater.
  set_last(seen)
elseif last < now - sure / 4 then
  -- Where nothing happens cursors must not fall behind what is sure of channels of which nothing is known.
  set_last(now)
end
if ARGV[8] ~= '' then
  redis.call('PUBLISH', ARGV[8], epoch .. ' ' .. digits(last))
end
return { epoch, digits(start), digits(last), digits(now) }
