-- The books by which replicas divide the limits of tenants and routes, as one call of a replica changes them.
-- `tidegate_core::escrow` is their definition; this does the same in the same order, and `tests/conformance` compares the two
-- call by call.
--
-- KEYS   all in one hash tag, so that they live at one node of a cluster
--   i    <prefix>:{escrow}:<owner>   hash: the book of the call's owner i; t and the tenant's number in hex, or r and the route's
--
-- ARGV
--   1    the server's clock in microseconds; 0: the script asks for it
--   2    the call, as `wire/escrow.rs` writes it: MessagePack values one after the other
--
-- Reply  numbers: those of `Reply::numbers`, then owner (from 1) and replica of each wakening, then how many of these there are.
--
-- Fields of a book. All is one MessagePack list; moments in microseconds of the book's time.
--   b      format, epoch, clock, the server's clock, whether it stands for a lost one (1 or 0); then of each limit and replica,
--          in this order, what is at the places that are named below
--
-- Everything is read and computed first and written last. No number is ever turned into text by `..` or `tostring`: they keep
-- 14 digits.

local FORMAT, HEAD, PART = 1, 5, 13
local STEP_MAX, SLACK, NEW_FOR, LOST_FOR = 15000000, 20000000, 2000000, 12000000
local FRESH, WAKE_AGAIN, PARTS_MAX = 1000000, 1000000, 512
local KEPT_LONGER = 600000
-- Places in what one replica has of one limit.
local NAME, REPLICA, SEQUENCE, HAS, KEEP, SPENT, NEED, LEAST, SINCE, SEEN, UNTIL, WOKEN, PRESSED = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
  11, 12, 13

local floor, min, max, format, call = math.floor, math.min, math.max, string.format, redis.call

local values = { cmsgpack.unpack(ARGV[2]) }
local replica, sequence, patience, leaves, trusts_empty = values[1], values[2], values[3], values[4] == 1, values[5] == 1
local server_time = tonumber(ARGV[1])
if server_time == 0 then
  local time = call('TIME')
  server_time = time[1] * 1000000 + time[2]
end

local reply, n = {}, 0
local wakenings = {}

local function read(key)
  local book = { epoch = 0, clock = 0, server = 0, is_lost = false, parts = {} }
  local got = call('HGET', key, 'b')
  local list = got and cmsgpack.unpack(got)
  if list and list[1] == FORMAT then
    book.epoch, book.clock, book.server, book.is_lost = list[2], list[3], list[4], list[5] == 1
    for at = HEAD + 1, #list, PART do
      local part = {}
      for k = 1, PART do part[k] = list[at + k - 1] end
      book.parts[#book.parts + 1] = part
    end
  end
  return book
end

local function write(key, book)
  local list, last = { FORMAT, book.epoch, book.clock, book.server, book.is_lost and 1 or 0 }, 0
  local count = HEAD
  for _, part in ipairs(book.parts) do
    for k = 1, PART do list[count + k] = part[k] end
    count, last = count + PART, max(last, part[UNTIL] - book.clock)
  end
  call('HSET', key, 'b', cmsgpack.pack(list))
  call('PEXPIRE', key, format('%.0f', floor(last / 1000) + KEPT_LONGER))
end

-- Divides what is free among those who are short: lists of since, replica, least, missing. Returns replicas and shares.
local function divide(pool, shorts)
  table.sort(shorts, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local rest, left, shares = pool, #shorts, {}
  for _, short in ipairs(shorts) do
    local share = min(max(floor((rest + left - 1) / left), short[3]), short[4], rest)
    rest, left = rest - share, left - 1
    if share > 0 then shares[#shares + 1] = { short[2], share } end
  end
  return shares
end

-- Tells a replica to call, unless it was told already.
local function wake(book, owner, part)
  if part[WOKEN] == 0 or book.clock - part[WOKEN] >= WAKE_AGAIN then
    part[WOKEN] = book.clock
    wakenings[#wakenings + 1] = { owner, part[REPLICA] }
  end
end

local function answer(has, is_pressed, spent)
  reply[n + 1], reply[n + 2], reply[n + 3], n = has, is_pressed and 1 or 0, spent, n + 3
end

-- Answers what the call says of one limit; `at` is before its first number.
local function claim(book, owner, claims, at)
  local name, amount, life, keep, need, least, want, own_spent = unpack(claims, at + 1, at + 8)
  local now, elsewhere, spent, shorts, before, others = book.clock, 0, 0, {}, nil, {}
  -- Where it is, or would be.
  local place = #book.parts + 1
  for k, part in ipairs(book.parts) do
    if part[NAME] > name or (part[NAME] == name and part[REPLICA] >= replica) then place = min(place, k) end
    if part[NAME] == name then
      if part[REPLICA] == replica then
        before = part
      else
        others[#others + 1] = part
        elsewhere, spent = elsewhere + part[HAS], spent + part[SPENT]
        local needs = part[KEEP] + part[NEED]
        if part[SINCE] > 0 and now - part[SEEN] <= FRESH and part[HAS] < needs then
          shorts[#shorts + 1] =
            { part[SINCE], part[REPLICA], max(part[KEEP] + part[LEAST] - part[HAS], 0), needs - part[HAS] }
        end
      end
    end
  end
  if before and before[SEQUENCE] == sequence then return answer(before[HAS], before[PRESSED] == 1, spent) end
  if not before and keep == 0 and #book.parts >= PARTS_MAX then return answer(0, true, spent) end
  if leaves then need = 0 end
  if book.is_lost and now < book.epoch + LOST_FOR then
    amount = 0
  elseif not book.is_lost and not trusts_empty and now < book.epoch + NEW_FOR then
    amount = floor((amount + 1) / 2)
  end
  local pool = max(max(amount - elsewhere, 0) - keep, 0)
  local is_pressed = #shorts > 0
  local since = now
  if need == 0 then
    since = 0
  elseif before and before[SINCE] > 0 then
    since = before[SINCE]
  end
  local grant = 0
  if leaves or (is_pressed and need == 0) then
    grant = 0
  elseif is_pressed then
    local all = { { since, replica, least, need } }
    for k, short in ipairs(shorts) do all[k + 1] = short end
    for _, share in ipairs(divide(pool, all)) do
      if share[1] == replica then grant = share[2] end
    end
  else
    grant = min(pool, max(want - keep, 0))
  end
  local has = keep + grant
  local lasts = patience + life + SLACK
  if has == 0 and need == 0 and own_spent == 0 then
    lasts = patience
  elseif leaves then
    lasts = life + SLACK
  end
  if need > 0 and grant >= least then since = now end
  local part = { name, replica, sequence, has, keep, own_spent, need, least, since, now, now + lasts, 0, is_pressed and 1 or 0 }
  if before then book.parts[place] = part else table.insert(book.parts, place, part) end
  for _, share in ipairs(divide(pool - grant, shorts)) do
    for _, other in ipairs(others) do
      if other[REPLICA] == share[1] then wake(book, owner, other) end
    end
  end
  if grant < need then
    -- Whoever does not know of it may have more than they need.
    for _, other in ipairs(others) do
      if other[HAS] > 0 and other[PRESSED] == 0 then wake(book, owner, other) end
    end
  end
  return answer(has, is_pressed, spent)
end

local books = {}
for owner = 1, #KEYS do
  local claims, book = values[HEAD + owner], read(KEYS[owner])
  books[owner] = book
  if book.epoch == 0 then
    book.epoch = max(server_time, 1)
    book.clock = book.epoch
  else
    book.clock = book.clock + min(max(server_time - book.server, 0), STEP_MAX)
  end
  book.server = server_time
  if claims[1] ~= 0 and claims[1] ~= book.epoch then book.is_lost = true end
  local kept = {}
  for _, part in ipairs(book.parts) do
    if part[UNTIL] > book.clock then kept[#kept + 1] = part end
  end
  book.parts = kept
  local is_stale = false
  for at = 1, #claims - 1, 8 do
    for _, part in ipairs(kept) do
      if part[NAME] == claims[at + 1] and part[REPLICA] == replica and part[SEQUENCE] > sequence then is_stale = true end
    end
  end
  n = n + 1
  reply[n] = is_stale and 0 or book.epoch
  if not is_stale then
    for at = 1, #claims - 1, 8 do claim(book, owner, claims, at) end
  end
end

for owner = 1, #KEYS do write(KEYS[owner], books[owner]) end
for _, one in ipairs(wakenings) do
  local prefix, name = KEYS[one[1]]:match('^(.*):{escrow}:([^:]*)$')
  call('PUBLISH', format('%s:wake:%.0f', prefix, one[2]), 'escrow ' .. name)
  reply[n + 1], reply[n + 2], n = one[1], one[2], n + 2
end
reply[n + 1] = #wakenings
return reply
