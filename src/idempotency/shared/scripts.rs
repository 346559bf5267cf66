//! The scripts that the store runs. Each is one atomic step.
//!
//! A key is a hash. `f` is the fingerprint of its call, `o` the request that holds the claim, `u` until when (in the store's
//! milliseconds). Of each leg, `l…` is its state (`s` and the request that sent it, or `d` and the outcome; absent while
//! claimed), and `q…` the last step for it: the request and a number.
//!
//! Steps have numbers because a step may be late: it timed out, and the store runs it after those that followed. A late
//! step has no effect. Nor has a step of a request whose claim was taken over, except that a request may always record
//! what became of a leg that it has sent.

/// Claims a key, or takes it over when its lease has ended. Arguments: fingerprint, request, lease, expiry. Returns `other`,
/// `busy` and the rest of the lease, or `claimed` and the hash.
pub(super) const CLAIM: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local f = redis.call('HGET', KEYS[1], 'f')
if f and f ~= ARGV[1] then return {'other'} end
local held = redis.call('HMGET', KEYS[1], 'o', 'u')
local left = tonumber(held[2] or '0') - now
if f and held[1] ~= ARGV[2] and left > 0 then return {'busy', string.format('%d', left)} end
redis.call('HSET', KEYS[1], 'f', ARGV[1], 'o', ARGV[2], 'u', string.format('%d', now + tonumber(ARGV[3])))
local least = tonumber(ARGV[3])
if not f then
  redis.call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[4]), least))
elseif redis.call('PTTL', KEYS[1]) < least then
  redis.call('PEXPIRE', KEYS[1], least)
end
local answer = redis.call('HGETALL', KEYS[1])
table.insert(answer, 1, 'claimed')
return answer
";

/// Marks a leg as sent. Arguments: request, number of the step, lease, leg. Returns `ok`, or `lost` if the request may not
/// send.
pub(super) const SEND: &str = r"
if redis.call('HGET', KEYS[1], 'o') ~= ARGV[1] then return {'lost'} end
local latest = redis.call('HGET', KEYS[1], 'q' .. ARGV[4]) or ''
if string.sub(latest, 1, #ARGV[1] + 1) == ARGV[1] .. ':' and tonumber(string.sub(latest, #ARGV[1] + 2)) >= tonumber(ARGV[2]) then
  return {'lost'}
end
local leg = redis.call('HGET', KEYS[1], 'l' .. ARGV[4])
if leg and leg ~= 's' .. ARGV[1] then return {'lost'} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'l' .. ARGV[4], 's' .. ARGV[1], 'q' .. ARGV[4], ARGV[1] .. ':' .. ARGV[2],
  'u', string.format('%d', now + tonumber(ARGV[3])))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return {'ok'}
";

/// Records legs, and gives the claim back if asked to. Arguments: request, fingerprint, expiry, `1` to give the claim back, and
/// for each leg its name, the number of the step and the outcome (empty if nothing was processed). A key that the store has
/// lost is made again. Returns `ok`, or `lost` if an outcome could not be recorded.
pub(super) const RECORD: &str = r"
local f = redis.call('HGET', KEYS[1], 'f')
if f and f ~= ARGV[2] then return {'lost'} end
local answer = 'ok'
for i = 5, #ARGV, 3 do
  local name, step, outcome = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local leg = redis.call('HGET', KEYS[1], 'l' .. name)
  local mine = leg == 's' .. ARGV[1]
  if outcome == '' then
    if mine then redis.call('HDEL', KEYS[1], 'l' .. name) end
    if f and redis.call('HGET', KEYS[1], 'o') == ARGV[1] then
      redis.call('HSET', KEYS[1], 'q' .. name, ARGV[1] .. ':' .. step)
    end
  elseif mine or not leg then
    if not f then
      f = ARGV[2]
      redis.call('HSET', KEYS[1], 'f', f)
      redis.call('PEXPIRE', KEYS[1], ARGV[3])
    end
    redis.call('HSET', KEYS[1], 'l' .. name, 'd' .. outcome)
  elseif leg ~= 'd' .. outcome then
    answer = 'lost'
  end
end
if ARGV[4] == '1' and redis.call('HGET', KEYS[1], 'o') == ARGV[1] then redis.call('HSET', KEYS[1], 'u', '0') end
return {answer}
";
