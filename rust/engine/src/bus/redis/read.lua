-- Some of a channel's past, as it is: whether it is all is for the caller to decide, by `p` and by the channel's last offset.
-- ARGV: prefix, database, channel, sure (µs), after, history_age (µs), how many, how many bytes.
local channel, sure, after = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local age, limit, bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local stream = prefix .. ':s:' .. channel
local taken, size, more, foreign = {}, 0, false, 0
-- What is too old counts as gone, whether it was trimmed already or not.
local from = digits(math.max(after + 1, now - age))
repeat
  local some = redis.pcall('XRANGE', stream, from, '+', 'COUNT', 32)
  for _, entry in ipairs(some) do
    more = #taken >= limit or size >= bytes
    if more then
      break
    end
    local offset, previous, text = string.match(entry[1], '^(%d+)-0$'), fields(entry)
    if offset and previous and text then
      taken[#taken + 1] = { offset, digits(previous), text }
      size = size + #text
    else
      foreign = foreign + 1
    end
    from = '(' .. entry[1]
  end
until more or #some < 32
return { epoch or '', digits(last or 0), digits(pointer(channel, sure)), more and 1 or 0, foreign, taken }
