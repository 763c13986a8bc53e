-- The way of the usual request: who asks, which version has the turn, which backend that is.
-- What is decided here is in variables of the transaction, for the rules of the configuration:
--   lane     backend of the version; without it the gateway's own proxy gets the request
--   asked    project, version and caller, for the line about the request
--   version, prefix, caller, turn, wait, several, strip
-- "tracklayer mark WORD" writes a line after those of all requests that are over.
-- "tracklayer load FILE" replaces all that is known: a Lua file that returns
--   {closed, places = {segment -> {project, prefix, closed, pinned, turns}}, keys = {digest -> ...}}
-- as lanes.py writes it.

local known = {closed = true, places = {}, keys = {}}

core.register_cli({"tracklayer", "mark"}, "tracklayer mark WORD", function(applet, _, _, word)
  core.log(core.info, "mark " .. word)
  applet:send("ok\n")
end)

local function clock()
  local now = core.now()
  return now.sec + now.usec / 1e6
end

local function carry_over(old, new)
  -- Credits go on, so that many changes do not favour the greatest share; tokens, so that none
  -- are given twice.
  for segment, place in pairs(new.places) do
    local before = old.places[segment]
    for _, turn in ipairs(place.turns) do
      turn.credit = 0
      for _, earlier in ipairs(before and before.turns or {}) do
        if earlier.version == turn.version then turn.credit = earlier.credit end
      end
    end
  end
  for digest, key in pairs(new.keys) do
    local before = old.keys[digest]
    if before and before.rate == key.rate and before.burst == key.burst then
      key.tokens, key.filled = before.tokens, before.filled
    else
      key.filled = clock()
    end
  end
end

core.register_cli({"tracklayer", "load"}, "tracklayer load FILE", function(applet, _, _, file)
  local chunk, problem = loadfile(file, "t", {})
  if not chunk then
    applet:send("no: " .. problem .. "\n")
    return
  end
  local new = chunk()
  carry_over(known, new)
  known = new
  applet:send("ok\n")
end)

-- Smooth weighted round robin, as balance.py has it.
local function next_turn(turns)
  local best = turns[1]
  if #turns == 1 then return best end
  for _, turn in ipairs(turns) do
    turn.credit = turn.credit + turn.share
    if turn.credit > best.credit then best = turn end
  end
  best.credit = best.credit - 1
  return best
end

-- The key in a request, and whether it is in the field Authorization; see admission.py.
local function presented(api_key, authorization, needed)
  local field
  if authorization and authorization:sub(1, 7):lower() == "bearer " then
    field = authorization:sub(8):match("^%s*(.-)%s*$")
    if not needed and field:sub(1, 4) ~= "tlk_" then field = nil end
  end
  if api_key and (needed or api_key:sub(1, 4) == "tlk_") then
    return api_key:match("^%s*(.-)%s*$"), field ~= nil
  end
  return field, field ~= nil
end

-- Seconds until the key has a token: 0 if it had one, which it has no more.
local function wait_for_token(key, now)
  local tokens = math.min(key.burst, key.tokens + math.max(0, now - key.filled) * key.rate)
  key.filled = now
  if tokens < 1 then
    key.tokens = tokens
    return (1 - tokens) / key.rate
  end
  key.tokens = tokens - 1
  return 0
end

core.register_action("enter", {"http-req"}, function(txn, how)
  local segment, rest = txn.f:url():match("^/([^/?]*)(.*)$")
  if not segment then return end
  local place = known.places[segment] or known.places[(segment:gsub("%%40", "@"))]
  if not place then return end

  local needed = known.closed or place.closed
  local closer = how == "closer"
  local key, strip, caller
  if closer then
    key, strip = presented(txn.f:req_fhdr("x-api-key"), txn.f:req_fhdr("authorization"), needed)
  end
  if key then
    local found = known.keys[txn.c:hex(txn.c:sha2(key, 256))]
    local now = clock()
    if not found or (found.expires and found.expires <= now)
        or (found.projects and not found.projects[place.project]) then
      return
    end
    caller = found.caller
    txn:set_var("txn.caller", caller)
    if found.rate then
      local wait = wait_for_token(found, now)
      if wait > 0 then
        txn:set_var("txn.wait", math.ceil(wait))
        return
      end
    end
  elseif needed then
    return
  end

  local turn = next_turn(place.turns)
  if turn.trial or not turn.lane or (closer and txn:get_var("txn.odd")) then
    if not place.pinned then txn:set_var("txn.turn", turn.version) end
    return
  end

  if rest:sub(1, 1) ~= "/" then rest = "/" .. rest end
  txn.http:req_set_uri(rest)
  txn:set_var("txn.lane", turn.lane)
  txn:set_var("txn.version", turn.version)
  txn:set_var("txn.asked", turn.asked .. (caller or "-"))
  txn:set_var("txn.prefix", place.prefix)
  if turn.several then txn:set_var("txn.several", true) end
  if strip then txn:set_var("txn.strip", true) end
end, 1)

-- Fields that the server's Connection names are between it and us.
core.register_action("hop", {"http-res"}, function(txn)
  for name in (txn.f:res_fhdr("connection") or ""):gmatch("[^%s,]+") do
    txn.http:res_del_header(name)
  end
  txn.http:res_del_header("connection")
end, 0)
