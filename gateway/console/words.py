"""Every word that the console shows, in English and in Urdu, side by side so that neither can be forgotten.

Keys are grouped by the part of the page that they serve. `{name}` marks what is filled in. Text that a person or the
station wrote (names, notes, reasons) is shown as it was written, isolated from the direction of the sentence around.
"""

from __future__ import annotations

from enum import StrEnum

from markupsafe import Markup, escape


class Language(StrEnum):
    """A language of the console."""

    EN = "en"
    UR = "ur"

    @property
    def direction(self) -> str:
        """ "ltr" or "rtl", for the `dir` attribute."""
        return "rtl" if self is Language.UR else "ltr"


WORDS: dict[str, tuple[str, str]] = {
    # The frame around every page
    "product": ("Tocsin", "ٹاکسن"),
    "skip": ("Skip to the page", "براہِ راست صفحے پر جائیں"),
    "nav": ("Pages", "صفحات"),
    "nav.alarms": ("Alarms", "الارم"),
    "nav.children": ("Buttons and stations", "بٹن اور اسٹیشن"),
    "nav.sites": ("Sites", "مقامات"),
    "nav.happenings": ("Events", "واقعات"),
    "nav.history": ("History", "ریکارڈ"),
    "nav.health": ("Health", "نظام کی حالت"),
    "role.hq": ("Headquarters", "ہیڈکوارٹر"),
    "role.site": ("Site", "مقام"),
    "sign_out": ("Sign out", "سائن آؤٹ"),
    "language.other": ("اردو", "English"),
    "clock": ("Time at this station", "اس اسٹیشن کا وقت"),
    "person.viewer": ("view only", "صرف دیکھنے کے لیے"),
    "no_script": (
        "Scripts are switched off in this browser: this page is not live and makes no sound. It reloads every 10 seconds.",
        "اس براؤزر میں اسکرپٹ بند ہے: یہ صفحہ خود تازہ نہیں ہوتا اور آواز نہیں دیتا۔ یہ ہر 10 سیکنڈ بعد دوبارہ کھلتا ہے۔",
    ),
    "ready": (
        "{ready} of {all} entrances can deliver a press now",
        "{all} میں سے {ready} داخلی راستے اس وقت الارم پہنچا سکتے ہیں",
    ),
    "ready.short": ("{ready} of {all} entrances ready", "{all} میں سے {ready} داخلی راستے تیار"),
    "ready.none": ("No button is known yet", "ابھی کوئی بٹن درج نہیں"),
    "banner.raised": ("ALARM", "الارم"),
    "banner.show": ("Show alarms", "الارم دکھائیں"),
    "banner.more": ("and {n} more", "اور مزید {n}"),
    # Connection
    "live.on": ("Live", "براہِ راست"),
    "live.connecting": ("Connecting…", "رابطہ ہو رہا ہے…"),
    "live.off": ("NOT LIVE", "براہِ راست نہیں"),
    "live.stale": (
        "This page is NOT live. New alarms do not appear here.",
        "یہ صفحہ براہِ راست نہیں ہے۔ نئے الارم یہاں ظاہر نہیں ہوں گے۔",
    ),
    "live.last": (
        "Last contact {age} ago. Trying again by itself.",
        "آخری رابطہ {age} پہلے۔ دوبارہ کوشش خود بخود جاری ہے۔",
    ),
    "live.never": ("No contact yet. Trying again by itself.", "ابھی رابطہ نہیں ہوا۔ دوبارہ کوشش خود بخود جاری ہے۔"),
    "live.advice": ("Use another console or the telephone meanwhile.", "اس دوران دوسرا کنسول یا ٹیلیفون استعمال کریں۔"),
    "live.elsewhere": (
        "This tab is paused: the console is open in too many tabs. Close some, then reload this one.",
        "یہ ٹیب رکا ہوا ہے: کنسول بہت سے ٹیبز میں کھلا ہے۔ کچھ ٹیب بند کریں، پھر اسے دوبارہ کھولیں۔",
    ),
    "live.back": ("Live again.", "دوبارہ براہِ راست۔"),
    # Sound
    "sound": ("Sound", "آواز"),
    "sound.on": ("Sound on", "آواز چالو"),
    "sound.blocked": ("NO SOUND: press here to enable it", "آواز بند ہے: چالو کرنے کے لیے یہاں دبائیں"),
    "sound.muted": ("MUTED, {s} s left: press to unmute", "آواز خاموش، {s} سیکنڈ باقی: بحال کرنے کے لیے دبائیں"),
    "sound.mute": ("Mute for 60 s", "60 سیکنڈ خاموش کریں"),
    "sound.test": ("Test the sound", "آواز آزمائیں"),
    # Alarms
    "alarms.title": ("Alarms", "الارم"),
    "alarms.one": ("1 open alarm", "1 کھلا الارم"),
    "alarms.many": ("{n} open alarms", "{n} کھلے الارم"),
    "alarms.none": ("No open alarms", "کوئی کھلا الارم نہیں"),
    "alarms.unacknowledged": ("{n} not acknowledged", "{n} کی تصدیق باقی ہے"),
    "card.more": (
        "{n} older open alarms of this button are not shown: they come up as these are closed",
        "اس بٹن کے {n} پرانے کھلے الارم دکھائے نہیں گئے: ان کے بند ہونے پر وہ سامنے آئیں گے",
    ),
    "alarms.last": ("Last alarm", "آخری الارم"),
    "alarms.no_last": ("No alarm has been received yet.", "ابھی تک کوئی الارم موصول نہیں ہوا۔"),
    "alarms.unable": ("These entrances can't be relied on now", "یہ داخلی راستے اس وقت قابلِ بھروسا نہیں"),
    "alarms.unable_more": ("and {n} more: see all", "اور مزید {n}: سب دیکھیں"),
    "alarms.new": ("New alarm: {where}. {cause}.", "نیا الارم: {where}۔ {cause}۔"),
    "alarms.site_role": (
        "Alarms are worked at headquarters. This console shows them; a step taken here may be refused.",
        "الارم پر کارروائی ہیڈکوارٹر کرتا ہے۔ یہ کنسول انہیں دکھاتا ہے؛ یہاں سے کیا گیا قدم مسترد ہو سکتا ہے۔",
    ),
    "alarms.last_test": ("Last alarm (a test)", "آخری الارم (آزمائش)"),
    "alarms.new_test": ("Test alarm, no emergency: {where}.", "آزمائشی الارم، ہنگامی حالت نہیں: {where}۔"),
    "test.mark": ("TEST, no emergency", "آزمائش، ہنگامی حالت نہیں"),
    "tests.title": ("Open test alarms", "کھلے آزمائشی الارم"),
    "tests.in_title": ("({n} test)", "({n} آزمائش)"),
    "tests.one": ("1 open test alarm", "1 کھلا آزمائشی الارم"),
    "tests.many": ("{n} open test alarms", "{n} کھلے آزمائشی الارم"),
    "card.pressed_at": ("Pressed {time}", "{time} پر دبایا گیا"),
    "card.pressed_before": ("Pressed at {time} or before", "{time} پر یا اس سے پہلے دبایا گیا"),
    "card.before_why": ("The button lost power after the press.", "دبانے کے بعد بٹن کی بجلی چلی گئی تھی۔"),
    "card.age": ("since the press", "دبائے جانے کو"),
    "card.age_least": ("at least, since the press", "کم از کم، دبائے جانے کو"),
    "card.not_acknowledged": ("Nobody has acknowledged this alarm.", "ابھی تک کسی نے اس الارم کی تصدیق نہیں کی۔"),
    "card.test_not_acknowledged": (
        "Nobody has acknowledged this test.",
        "ابھی تک کسی نے اس آزمائش کی تصدیق نہیں کی۔",
    ),
    "card.device": ("Button", "بٹن"),
    "card.vouched": ("Vouched for by", "ضمانت دینے والا مرکز"),
    "card.how": ("How pressed", "کیسے دبایا گیا"),
    "card.address": ("Address", "پتا"),
    "card.phone": ("Telephone", "ٹیلیفون"),
    "card.no_phone": ("No telephone is entered for this site", "اس مقام کا ٹیلیفون نمبر درج نہیں"),
    "card.received": ("Received", "موصول ہوا"),
    "card.done": ("Done so far", "اب تک کی کارروائی"),
    "card.details": ("Details", "تفصیل"),
    "state.raised": ("Not acknowledged", "تصدیق باقی"),
    "state.acknowledged": ("Acknowledged", "تصدیق ہو گئی"),
    "state.responding": ("Unit responding", "یونٹ روانہ"),
    "state.on_scene": ("On scene", "موقع پر موجود"),
    "state.closed": ("Closed", "بند"),
    "step.acknowledged": ("Acknowledge", "تصدیق کریں"),
    "step.responding": ("Unit responding", "یونٹ روانہ"),
    "step.on_scene": ("On scene", "موقع پر پہنچ گئے"),
    "step.closed": ("Close…", "بند کریں…"),
    "cause.hold_up": ("Hold-up", "مسلح حملہ"),
    "cause.duress": ("Duress code", "دباؤ کا کوڈ"),
    "cause.medical": ("Medical emergency", "طبی ہنگامی حالت"),
    "cause.test": ("Test", "آزمائش"),
    "how.both": ("both contacts of the button", "بٹن کے دونوں کنٹیکٹ"),
    "how.contact_a": ("contact A alone: check contact B", "صرف کنٹیکٹ A: کنٹیکٹ B کی جانچ کریں"),
    "how.contact_b": ("contact B alone: check contact A", "صرف کنٹیکٹ B: کنٹیکٹ A کی جانچ کریں"),
    # Closing
    "close.title": ("Close the alarm", "الارم بند کریں"),
    "close.outcome": ("How did it end?", "نتیجہ کیا رہا؟"),
    "close.note": ("Note", "نوٹ"),
    "close.note_hint": ("What was found, who attended", "کیا معلوم ہوا، کون پہنچا"),
    "close.do": ("Close the alarm", "الارم بند کریں"),
    "close.cancel": ("Keep it open", "کھلا رکھیں"),
    "outcome.genuine": ("Genuine", "حقیقی"),
    "outcome.false_alarm": ("False alarm", "غلط الارم"),
    "outcome.drill": ("Drill", "مشق"),
    "outcome.test": ("Test", "آزمائش"),
    "outcome.fault": ("Technical fault", "فنی خرابی"),
    "outcome.none": ("still open", "ابھی کھلا"),
    # Answers to a step
    "answer.done": ("{where}: {state}", "{where}: {state}"),
    "answer.refused": ("Not done. {where} is now: {state}.", "قدم نہیں اٹھایا گیا۔ {where} کی موجودہ حالت: {state}۔"),
    "answer.by": ("{state} by {who} at {time}", "{state}، از {who}، {time} پر"),
    "answer.reason": ("The station says: {reason}", "اسٹیشن کا جواب: {reason}"),
    "answer.outcome": ("Choose how it ended before closing.", "بند کرنے سے پہلے نتیجہ منتخب کریں۔"),
    "answer.unsent": (
        "NOT SENT: the station did not answer. Do it again.",
        "نہیں بھیجا گیا: اسٹیشن نے جواب نہیں دیا۔ دوبارہ کریں۔",
    ),
    "answer.viewer": (
        "Your account may only look. An operator has to do this.",
        "آپ صرف دیکھ سکتے ہیں۔ یہ قدم آپریٹر اٹھائے گا۔",
    ),
    "answer.dismiss": ("Dismiss", "ہٹائیں"),
    # One alarm
    "incident.title": ("Alarm {number}", "الارم {number}"),
    "incident.test_title": ("Test alarm {number}", "آزمائشی الارم {number}"),
    "incident.timeline": ("Timeline", "کارروائی کی ترتیب"),
    "incident.pressed": ("Pressed", "دبایا گیا"),
    "incident.received": ("Received at this station", "اس اسٹیشن پر موصول"),
    "incident.next": ("Next step", "اگلا قدم"),
    "incident.after": ("{age} after the press", "دبانے کے {age} بعد"),
    "incident.note": ("Note (may be left empty)", "نوٹ (خالی چھوڑا جا سکتا ہے)"),
    "incident.message": ("Message", "پیغام"),
    "incident.boot_seq": ("boot {boot}, message {seq}", "بوٹ {boot}، پیغام {seq}"),
    "incident.back": ("All open alarms", "تمام کھلے الارم"),
    # Buttons and stations
    "children.title": ("Buttons and stations", "بٹن اور اسٹیشن"),
    "children.filter": ("Filter", "تلاش"),
    "children.filter_hint": ("site, entrance, id, state…", "مقام، داخلی راستہ، شناخت، حالت…"),
    "children.apply": ("Apply", "لاگو کریں"),
    "children.shown": ("{shown} of {all} shown", "{all} میں سے {shown} نظر آ رہے ہیں"),
    "children.none": ("No button or station is known yet.", "ابھی کوئی بٹن یا اسٹیشن درج نہیں۔"),
    "children.no_match": ("Nothing matches the filter.", "تلاش کے مطابق کچھ نہیں ملا۔"),
    "column.place": ("Site and entrance", "مقام اور داخلی راستہ"),
    "column.device": ("Id", "شناخت"),
    "column.state": ("State", "حالت"),
    "column.heard": ("Last heard", "آخری رابطہ"),
    "column.loop": ("Wire loop", "بٹن کی تار"),
    "column.tamper": ("Tamper", "ڈھکن"),
    "column.battery": ("Battery", "بیٹری"),
    "column.supply": ("Supply", "بجلی"),
    "column.signal": ("Signal", "سگنل"),
    "column.firmware": ("Firmware", "فرم ویئر"),
    "column.via": ("Via", "بذریعہ"),
    "kind.button": ("Button", "بٹن"),
    "kind.station": ("Station", "اسٹیشن"),
    "link.never_seen": ("Never heard", "کبھی رابطہ نہیں ہوا"),
    "link.online": ("Ready", "تیار"),
    "link.late": ("Late", "تاخیر"),
    "link.offline": ("Offline", "رابطہ منقطع"),
    "link.faulty": ("Faulty", "خراب"),
    "link.tampered": ("Tampered", "چھیڑ چھاڑ"),
    "link.maintenance": ("Maintenance", "دیکھ بھال"),
    "link.retired": ("Retired", "سروس سے ہٹایا گیا"),
    "coverage.title": (
        "Entrances that can deliver a press now, by site",
        "مقام کے لحاظ سے وہ داخلی راستے جو الارم پہنچا سکتے ہیں",
    ),
    "maintenance.title": ("Maintenance", "دیکھ بھال"),
    "maintenance.until": ("under maintenance until {time}", "{time} تک دیکھ بھال جاری ہے"),
    "maintenance.explained": (
        "Until the end its silence is no event. A press is a full alarm all the same.",
        "اختتام تک اس کی خاموشی واقعہ شمار نہیں ہو گی۔ بٹن دبانے پر مکمل الارم پھر بھی آئے گا۔",
    ),
    "maintenance.at_hq": (
        "Maintenance is set at headquarters, which tells its gateways.",
        "دیکھ بھال کا وقت ہیڈکوارٹر مقرر کرتا ہے اور اسٹیشنوں کو بتاتا ہے۔",
    ),
    "maintenance.for": ("From now, for", "ابھی سے، مدت"),
    "maintenance.begin": ("Begin maintenance", "دیکھ بھال شروع کریں"),
    "maintenance.change": ("Change the end", "اختتام بدلیں"),
    "maintenance.end": ("End it now", "ابھی ختم کریں"),
    "loop.rest": ("at rest", "معمول پر"),
    "loop.pressed": ("PRESSED", "دبا ہوا"),
    "loop.cut": ("cut", "کٹی ہوئی"),
    "loop.shorted": ("shorted", "شارٹ"),
    "loop.faulty": ("faulty", "خراب"),
    "tamper.closed": ("closed", "بند"),
    "tamper.open": ("OPEN", "کھلا"),
    "supply.mains": ("mains", "مین بجلی"),
    "supply.battery": ("on battery", "بیٹری پر"),
    "signal.cable": ("cable", "کیبل"),
    "testing.granted": ("A technician may test here", "یہاں تکنیکی عملے کو آزمائش کی اجازت ہے"),
    "testing.on": ("UNDER TEST: presses here are no alarms", "زیرِ آزمائش: یہاں بٹن دبانا الارم نہیں"),
    "spare.dead": ("Its second path is dead", "اس کا دوسرا راستہ بند ہے"),
    "signal.good": ("good", "اچھا"),
    "signal.fair": ("fair", "درمیانہ"),
    "signal.weak": ("weak", "کمزور"),
    "enrolling": ("being enrolled, until {time}", "اندراج جاری ہے، {time} تک"),
    "pending": ("{n} unsent", "{n} غیر ارسال شدہ"),
    "unknown": ("–", "–"),
    "no_place": ("Place not entered", "مقام درج نہیں"),
    # Sites and entrances
    "sites.title": ("Sites", "مقامات"),
    "sites.all": ("All sites", "تمام مقامات"),
    "sites.none": ("No site is entered yet.", "ابھی کوئی مقام درج نہیں۔"),
    "sites.new": ("New site", "نیا مقام"),
    "sites.change": ("Change this site", "اس مقام کی معلومات بدلیں"),
    "sites.save": ("Save", "محفوظ کریں"),
    "sites.history": ("Who changed what", "کس نے کیا بدلا"),
    "sites.undo": ("Undo this change", "یہ تبدیلی واپس لیں"),
    "sites.emptied": ("(taken away)", "(ہٹا دیا گیا)"),
    "sites.not_kept": (
        "Nothing was saved yet. Correct what is marked, and save again.",
        "ابھی کچھ محفوظ نہیں ہوا۔ نشان زدہ غلطیاں درست کر کے دوبارہ محفوظ کریں۔",
    ),
    "sites.not_administrator": (
        "Only an administrator may change what is known of a site.",
        "مقام کی معلومات صرف منتظم بدل سکتا ہے۔",
    ),
    "sites.wrong_id": (
        "Use 1 to 64 of a-z, 0-9, '-' and '.', starting with a letter or digit.",
        "1 سے 64 حروف: a-z، 0-9، '-' اور '.'، آغاز حرف یا ہندسے سے۔",
    ),
    "sites.there": (
        "This short name is in use already, for {name}.",
        "یہ مختصر نام پہلے سے {name} کے لیے استعمال میں ہے۔",
    ),
    "site.id": ("Short name", "مختصر نام"),
    "site.name": ("Name", "نام"),
    "site.name_ur": ("Name in Urdu", "نام اردو میں"),
    "site.address": ("Address", "پتا"),
    "site.address_ur": ("Address in Urdu", "پتا اردو میں"),
    "site.position": ("Latitude, longitude (WGS 84)", "عرض بلد، طول بلد (WGS 84)"),
    "site.contacts": ("Contacts", "رابطے"),
    "site.contacts_hint": (
        "In the order to call them. Empty a row to take it away.",
        "اسی ترتیب سے فون کیا جائے گا۔ ہٹانے کے لیے قطار خالی کریں۔",
    ),
    "site.plan": ("Response plan", "کارروائی کا منصوبہ"),
    "site.plan_ur": ("Response plan in Urdu", "کارروائی کا منصوبہ اردو میں"),
    "site.notes": ("Notes", "نوٹ"),
    "site.entrances": ("Entrances", "داخلی راستے"),
    "site.entrances_hint": (
        "Short name, name, name in Urdu, position. Empty the names to take away one that never had a button.",
        "مختصر نام، نام، نام اردو میں، عرض و طول بلد۔ جس پر کبھی بٹن نہ تھا اسے ہٹانے کے لیے نام خالی کریں۔",
    ),
    "site.entrance": ("Entrance {id}", "داخلی راستہ {id}"),
    "site.entered": ("entered", "درج"),
    "site.missing": ("MISSING", "درج نہیں"),
    "site.where": ("Where", "کہاں"),
    "site.map": ("Open in a map", "نقشے میں کھولیں"),
    "site.call": ("Whom to call", "کس کو فون کریں"),
    "site.no_address": ("No address is entered", "پتا درج نہیں"),
    "site.no_plan": ("No response plan is entered for this site", "اس مقام کا کوئی منصوبہ درج نہیں"),
    "contact.name": ("Name", "نام"),
    "contact.role": ("Role", "عہدہ"),
    "contact.phone": ("Telephone", "ٹیلیفون"),
    "entrance.past": ("History of this entrance", "اس داخلی راستے کا ریکارڈ"),
    "entrance.buttons": ("Buttons, now and before", "بٹن، موجودہ اور سابقہ"),
    "entrance.no_buttons": ("No button was ever here.", "یہاں کبھی کوئی بٹن نہیں تھا۔"),
    "entrance.alarms": ("Alarms", "الارم"),
    "entrance.device": ("Id", "شناخت"),
    "entrance.state": ("State", "حالت"),
    "entrance.enrolled": ("Enrolled", "اندراج"),
    "entrance.by": ("By", "از"),
    "entrance.retired": ("Retired", "سروس سے ہٹا"),
    "entrance.why": ("Why", "کیوں"),
    "entrance.replaced": ("in place of {id}", "{id} کی جگہ"),
    "standing.pending": ("being enrolled", "اندراج جاری"),
    "standing.enrolled": ("in use", "استعمال میں"),
    "standing.retired": ("retired", "سروس سے ہٹا دیا گیا"),
    # Happenings
    "happenings.title": ("Events", "واقعات"),
    "happenings.none": ("Nothing has happened yet.", "ابھی تک کوئی واقعہ نہیں ہوا۔"),
    "happenings.when": ("Time", "وقت"),
    "happenings.what": ("What happened", "کیا ہوا"),
    "happenings.where": ("Where", "کہاں"),
    "happenings.detail": ("Particulars", "تفصیل"),
    "happening.started": ("Started", "چالو ہوا"),
    "happening.loop_cut": ("The button's wire was cut", "بٹن کی تار کٹ گئی"),
    "happening.loop_shorted": ("The button's wire was shorted", "بٹن کی تار شارٹ ہو گئی"),
    "happening.loop_restored": ("The button's wire is whole again", "بٹن کی تار بحال ہو گئی"),
    "happening.tampered": ("The enclosure was opened", "ڈبے کا ڈھکن کھولا گیا"),
    "happening.tamper_restored": ("The enclosure is closed again", "ڈبے کا ڈھکن بند ہو گیا"),
    "happening.loop_faulty": ("The button's wire is faulty", "بٹن کی تار میں خرابی ہے"),
    "happening.faulted": ("Its firmware failed and started again", "اس کا پروگرام رک کر دوبارہ شروع ہوا"),
    "happening.still_pressed": (
        "Still pressed after its start: the same alarm",
        "شروع ہونے کے بعد بھی دبا ہوا ہے: وہی الارم",
    ),
    "happening.contact_chatters": (
        "Its contact chatters: further presses joined the open alarm",
        "اس کا کنٹیکٹ بار بار کھل بند ہو رہا ہے: مزید دباؤ اسی کھلے الارم میں شامل ہوئے",
    ),
    "happening.update_trial": ("A new firmware runs on trial", "نیا پروگرام آزمائش پر چل رہا ہے"),
    "happening.rollout": ("Firmware update of the buttons", "بٹنوں کے پروگرام کی تجدید"),
    "happening.contact_stuck": ("Pressed for ten minutes: reset it", "دس منٹ سے دبا ہوا ہے: اسے بحال کریں"),
    "happening.path_changed": ("Its messages take another path", "اس کے پیغامات دوسرے راستے سے آ رہے ہیں"),
    "happening.spare_lost": ("Its second path is dead", "اس کا دوسرا راستہ بند ہو گیا"),
    "happening.spare_back": ("Its second path is back", "اس کا دوسرا راستہ بحال ہو گیا"),
    "happening.testing_begun": ("Under test: presses are no alarms", "زیرِ آزمائش: بٹن دبانا الارم نہیں"),
    "happening.testing_ended": ("The test is over: presses are alarms", "آزمائش ختم: بٹن دبانا اب الارم ہے"),
    "happening.events_dropped": ("Events were dropped: its memory was full", "واقعات ضائع ہوئے: حافظہ بھر گیا تھا"),
    "happening.command_done": ("Did what headquarters asked", "ہیڈکوارٹر کی ہدایت پر عمل ہوا"),
    "happening.command_failed": ("Could not do what headquarters asked", "ہیڈکوارٹر کی ہدایت پر عمل نہ ہو سکا"),
    "happening.child_silent": ("Went silent", "خاموش ہو گیا"),
    "happening.child_back": ("Is heard again", "دوبارہ رابطے میں ہے"),
    "happening.many_silent": ("Several went silent at once", "ایک ساتھ کئی خاموش ہو گئے"),
    "happening.many_back": ("Several are heard again", "کئی دوبارہ رابطے میں ہیں"),
    "happening.maintenance": ("Maintenance was begun", "دیکھ بھال شروع ہوئی"),
    "happening.maintenance_ended": ("Maintenance was ended", "دیکھ بھال ختم کی گئی"),
    "happening.journal_lacks": ("A journal lacks what it had", "ریکارڈ میں سے اندراجات غائب ہیں"),
    "happening.broker_lost": ("Lost its message broker", "پیغام رسانی کا بروکر منقطع"),
    "happening.broker_back": ("Its message broker is back", "پیغام رسانی کا بروکر بحال"),
    "happening.refusal": ("Something was refused", "کوئی پیغام یا رابطہ مسترد ہوا"),
    "happening.storage_failed": ("Storage failed", "ریکارڈ محفوظ نہ ہو سکا"),
    "happening.storage_restored": ("Storage works again", "ریکارڈ دوبارہ محفوظ ہو رہا ہے"),
    "happening.clock_jumped": ("The clock was set or jumped", "گھڑی کا وقت اچانک بدل گیا"),
    "happening.checkpoint": ("The journal was sealed", "ریکارڈ پر مہر لگائی گئی"),
    "happening.registry_entry": ("The registry was changed", "رجسٹر میں تبدیلی ہوئی"),
    "happening.enrolment_begun": ("A button is being enrolled", "بٹن کا اندراج شروع ہوا"),
    "happening.enrolled": ("A button was enrolled", "بٹن کا اندراج مکمل ہوا"),
    "happening.enrolment_expired": ("An enrolment was not completed in time", "اندراج وقت پر مکمل نہ ہوا"),
    "happening.retired": ("A button was retired", "بٹن سروس سے ہٹا دیا گیا"),
    "happening.revocations": ("The list of revoked certificates was replaced", "منسوخ سرٹیفکیٹس کی فہرست بدل دی گئی"),
    "happening.site_changed": ("What is known of a site was changed", "مقام کی معلومات بدل دی گئیں"),
    "happening.acknowledged": ("An operator acknowledged the alarm", "آپریٹر نے الارم کی تصدیق کی"),
    "happening.responding": ("A unit is responding to the alarm", "الارم پر یونٹ روانہ ہوا"),
    "happening.on_scene": ("A unit is on scene", "یونٹ موقع پر پہنچ گیا"),
    "happening.closed": ("The alarm was closed", "الارم بند کیا گیا"),
    "happening.other": ("Event {code}", "واقعہ {code}"),
    "older": ("Older", "پرانے"),
    "newest": ("Newest", "تازہ ترین"),
    # History
    "history.title": ("History", "ریکارڈ"),
    "history.none": ("No alarm is recorded here.", "یہاں کوئی الارم درج نہیں۔"),
    "history.number": ("No.", "نمبر"),
    "history.pressed": ("Pressed", "دبایا گیا"),
    "history.where": ("Site and entrance", "مقام اور داخلی راستہ"),
    "history.cause": ("Cause", "وجہ"),
    "history.answer": ("Acknowledged after", "تصدیق میں وقت"),
    "history.by": ("By", "از"),
    "history.ended": ("Ended", "اختتام"),
    "history.outcome": ("Outcome", "نتیجہ"),
    "history.at_or_before": ("at or before", "یا اس سے پہلے"),
    # Health
    "child.back": ("All buttons and stations", "تمام بٹن اور اسٹیشن"),
    "child.commands": ("Commands", "احکامات"),
    "child.no_commands": ("No command was given yet.", "ابھی تک کوئی حکم نہیں دیا گیا۔"),
    "child.station": ("Commands go to buttons only.", "احکامات صرف بٹنوں کو دیے جاتے ہیں۔"),
    "child.not_here": (
        "Commands are given at headquarters: a button believes nobody else.",
        "احکامات ہیڈکوارٹر سے دیے جاتے ہیں: بٹن کسی اور کی نہیں مانتا۔",
    ),
    "child.viewer": ("Only operators give commands.", "احکامات صرف آپریٹر دے سکتے ہیں۔"),
    "child.signal": ("A press is confirmed", "دبانے کی تصدیق"),
    "child.asked": ("Asked", "کب کہا گیا"),
    "child.answered": ("Answered", "جواب"),
    "child.command": ("Command", "حکم"),
    "command.identify": ("Blink", "بتی جھپکائیں"),
    "command.test": ("Test alarm", "آزمائشی الارم"),
    "command.testing": ("Allow tests for 15 min", "15 منٹ کے لیے آزمائش کی اجازت"),
    "command.testing_over": ("End tests", "آزمائش ختم کریں"),
    "command.reboot": ("Restart", "دوبارہ چلائیں"),
    "command.configuration": ("Change settings", "ترتیبات بدلیں"),
    "command.certificate": ("New certificate", "نیا سرٹیفکیٹ"),
    "command.update": ("New firmware", "نیا پروگرام"),
    "command.wifi": ("Wi-Fi network", "وائی فائی نیٹ ورک"),
    "command_state.waiting": ("Waiting for the button", "بٹن کا انتظار ہے"),
    "command_state.done": ("Done", "ہو گیا"),
    "command_state.failed": ("Failed", "ناکام"),
    "command_state.expired": ("Not answered in time", "وقت پر جواب نہیں آیا"),
    "command_state.replaced": ("Replaced by a newer one", "نئے حکم نے جگہ لے لی"),
    "confirms.visible": ("by light", "روشنی سے"),
    "confirms.silent": ("hardly visibly", "تقریباً پوشیدہ"),
    "confirms.audible": ("by light and tones", "روشنی اور آواز سے"),
    "health.title": ("Health", "نظام کی حالت"),
    "health.good": ("Everything that is checked is in order.", "تمام جانچی گئی چیزیں درست ہیں۔"),
    "health.bad": ("{n} of {all} checks failed", "{all} میں سے {n} جانچ ناکام"),
    "health.checks": ("Checks", "جانچ"),
    "health.ok": ("in order", "درست"),
    "health.fault": ("TROUBLE", "خرابی"),
    "health.counters": ("Counters since start", "آغاز سے اب تک کی گنتی"),
    "health.refused": ("Refused", "مسترد شدہ"),
    "health.refused_hint": (
        "Messages and connections that were turned away. None of them stopped anybody else's alarm.",
        "وہ پیغامات اور رابطے جو قبول نہیں کیے گئے۔ ان سے کسی دوسرے الارم میں رکاوٹ نہیں آئی۔",
    ),
    "health.none_refused": ("Nothing was refused.", "کچھ مسترد نہیں ہوا۔"),
    "health.who": ("Who", "کون"),
    "health.why": ("Why", "کیوں"),
    "health.count": ("Times", "کتنی بار"),
    "health.last": ("Last", "آخری بار"),
    "health.sample": ("Sample", "نمونہ"),
    "health.station": ("Station", "اسٹیشن"),
    "health.version": ("Version", "ورژن"),
    "health.started": ("Running since", "کب سے چل رہا ہے"),
    "check.broker": ("Message broker", "پیغام رسانی کا بروکر"),
    "check.journal": ("Journal", "جرنل"),
    "check.disk": ("Disk", "ڈسک"),
    "check.clock": ("Clock", "گھڑی"),
    "check.certificates": ("Certificates", "سرٹیفکیٹس"),
    "check.console": ("Console", "کنسول"),
    "check.parent": ("Link to {name}", "{name} سے رابطہ"),
    "check.clock of": ("Clock of {name}", "{name} کی گھڑی"),
    # Sign-in
    "sign_in.title": ("Sign in", "سائن اِن"),
    "sign_in.name": ("Name", "نام"),
    "sign_in.password": ("Password", "پاس ورڈ"),
    "sign_in.do": ("Sign in", "سائن اِن کریں"),
    "sign_in.wrong": ("The name or the password is wrong.", "نام یا پاس ورڈ درست نہیں۔"),
    "sign_in.locked": (
        "Too many wrong tries. Try again in {wait}. If you forgot the password, ask the administrator.",
        "بہت زیادہ غلط کوششیں۔ {wait} بعد دوبارہ کوشش کریں۔ پاس ورڈ یاد نہ ہو تو منتظم سے رجوع کریں۔",
    ),
    "sign_in.busy": (
        "Too many people are signing in. Try again in a moment.",
        "اس وقت بہت سے لوگ سائن اِن کر رہے ہیں۔ ذرا دیر بعد کوشش کریں۔",
    ),
    "sign_in.stale": ("This page was open too long. Try again.", "یہ صفحہ بہت دیر کھلا رہا۔ دوبارہ کوشش کریں۔"),
    "sign_in.ended": ("You were signed out. Sign in again.", "آپ سائن آؤٹ ہو گئے ہیں۔ دوبارہ سائن اِن کریں۔"),
    # Mistakes
    "error.403": ("Not allowed", "اجازت نہیں"),
    "error.403.text": ("Your account may not do this.", "آپ کو اس کام کی اجازت نہیں۔"),
    "error.csrf": (
        "This request did not come from a page of this console, or the page was open too long. Go back, reload, and do it again.",
        "یہ درخواست اس کنسول کے صفحے سے نہیں آئی، یا صفحہ بہت دیر کھلا رہا۔ واپس جائیں، صفحہ تازہ کریں اور دوبارہ کریں۔",
    ),
    "error.404": ("Not found", "نہیں ملا"),
    "error.404.text": ("There is no such page or alarm here.", "یہاں ایسا کوئی صفحہ یا الارم نہیں۔"),
    "error.405": ("Not possible", "ممکن نہیں"),
    "error.405.text": ("This page can't be used in that way.", "یہ صفحہ اس طرح استعمال نہیں ہو سکتا۔"),
    "error.409": ("Not done", "قدم نہیں اٹھایا گیا"),
    "error.413": ("Too long", "بہت طویل"),
    "error.413.text": ("What was sent is too long. Shorten the note.", "بھیجا گیا متن بہت طویل ہے۔ نوٹ مختصر کریں۔"),
    "error.413.list": (
        "The list of revoked certificates is longer than 1024 KB.",
        "منسوخ سرٹیفکیٹس کی فہرست 1024 KB سے بڑی ہے۔",
    ),
    "error.422": ("Not understood", "سمجھ نہیں آیا"),
    "error.422.text": ("Something in the request is missing or wrong.", "درخواست میں کچھ کم ہے یا غلط ہے۔"),
    "error.429": ("Too many tries", "بہت زیادہ کوششیں"),
    "error.500": ("The console failed", "کنسول میں خرابی"),
    "error.500.text": (
        "The console made a mistake; it is recorded in the station's log. Alarms are still received. Reload, or use another console.",
        "کنسول میں غلطی ہوئی جو اسٹیشن کے لاگ میں درج ہے۔ الارم بدستور موصول ہو رہے ہیں۔ صفحہ دوبارہ کھولیں یا دوسرا کنسول استعمال کریں۔",
    ),
    "error.unreadable": ("The database can't be read", "ڈیٹا بیس پڑھا نہیں جا سکتا"),
    "error.unreadable.text": (
        "The station's database can't be read since {since}. Buttons and gateways hold their alarms meanwhile. Call whoever looks after it.",
        "اسٹیشن کا ڈیٹا بیس {since} سے پڑھا نہیں جا سکتا۔ کچھ ضائع نہیں ہوگا: بٹن اور گیٹ وے اپنے الارم محفوظ رکھتے ہیں۔ ذمہ دار کو بلائیں اور دوسرا کنسول استعمال کریں۔",
    ),
    "error.503": ("Busy", "مصروف"),
    "error.503.text": (
        "Too many pages are open. Try again in a moment.",
        "بہت سے صفحات کھلے ہیں۔ ذرا دیر بعد کوشش کریں۔",
    ),
    "error.401.text": ("Sign in first.", "پہلے سائن اِن کریں۔"),
    "error.home": ("Go to the alarms", "الارم کے صفحے پر جائیں"),
    # Keyboard help
    "help": ("Help", "مدد"),
    "help.title": ("Keys", "کی بورڈ"),
    "help.arrows": ("Select the next or the previous alarm", "اگلا یا پچھلا الارم منتخب کریں"),
    "help.a": ("Acknowledge the selected alarm", "منتخب الارم کی تصدیق کریں"),
    "help.r": ("A unit is responding", "یونٹ روانہ ہو گیا"),
    "help.o": ("A unit is on scene", "یونٹ موقع پر پہنچ گیا"),
    "help.c": ("Close: asks for the outcome", "بند کریں: نتیجہ پوچھا جائے گا"),
    "help.enter": ("Open the details of the selected alarm", "منتخب الارم کی تفصیل کھولیں"),
    "help.m": ("Mute for 60 s; a new alarm sounds all the same", "60 سیکنڈ خاموشی؛ نیا الارم پھر بھی بجے گا"),
    "help.question": ("This list", "یہ فہرست"),
    "help.close": ("Close", "بند کریں"),
    # Lengths of time
    "span.s": ("{n} s", "{n} سیکنڈ"),
    "span.min": ("{n} min", "{n} منٹ"),
    "span.h": ("{n} h", "{n} گھنٹے"),
    "span.d": ("{n} d", "{n} دن"),
    "ago": ("{age} ago", "{age} پہلے"),
}

SCRIPT_KEYS = (
    "live.on", "live.connecting", "live.off", "live.last", "live.never", "live.elsewhere", "live.back",
    "sound.on", "sound.blocked", "sound.muted", "answer.unsent", "answer.outcome",
    "children.shown", "span.s", "span.min", "span.h", "span.d", "ago",
)  # fmt: skip
"""Words that the page's script needs; they travel with the page."""

_ISOLATE, _END = "\u2068", "\u2069"


class Words:
    """The words of one language."""

    def __init__(self, language: Language) -> None:
        """language: which column of the catalogue."""
        self.language = language
        self._column = list(Language).index(language)

    def raw(self, key: str) -> str:
        """The text of `key` with its marks unfilled. Raises KeyError for a key that is not in the catalogue."""
        return WORDS[key][self._column]

    def plain(self, key: str, **values: object) -> str:
        """For attributes and JSON: values are isolated by Unicode marks (UAX 9, 3.1), so an id can't turn a sentence."""
        return self.raw(key).format(**{name: f"{_ISOLATE}{value}{_END}" for name, value in values.items()})

    def html(self, key: str, **values: object) -> Markup:
        """For a page: values are escaped and isolated with <bdi>; values that are Markup already stay as they are."""
        filled = {name: value if isinstance(value, Markup) else bdi(value) for name, value in values.items()}
        return escape(self.raw(key)).format(**filled)

    def known(self, group: str, name: str) -> str:
        """The word for `name` of a group ("cause", "loop", …); an unknown name is shown as itself, never hidden."""
        key = f"{group}.{name}"
        return self.raw(key) if key in WORDS else name.replace("_", " ")

    def for_script(self) -> dict[str, str]:
        """What the page's script needs."""
        return {key: self.raw(key) for key in SCRIPT_KEYS}


IN = {language: Words(language) for language in Language}
"""The words of each language."""


def bdi(value: object) -> Markup:
    """A value isolated from the direction of the text around it."""
    return Markup("<bdi>{}</bdi>").format(value)
