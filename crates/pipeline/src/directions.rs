//! From two sets of prompts to one direction for each residual site.

use ablation::{Cloud, DirectionOptions, Directions, Moments, SiteGeometry, SiteSpread};
use engine::{Generation, Request};

use crate::model::{Model, PromptTexts};
use crate::settings::{BAD_PROMPTS, GOOD_PROMPTS, KEEP_PROMPTS};
use crate::{Cancel, Event, Events, PipelineError, Settings, Stage};

/// Prompts whose residuals are in memory at once.
const CHUNK: usize = 64;

/// Means of the residuals at the last token of the prompts of a set, for every site; the residuals go to `cloud`, too.
fn moments(
    model: &mut Model,
    settings: &Settings,
    set: &str,
    texts: &[String],
    mut cloud: Option<&mut Cloud>,
    progress: &mut dyn FnMut(usize),
    cancel: &Cancel<'_>,
) -> Result<Moments, PipelineError> {
    let encoded = model.encode(settings.set(set)?, settings, texts)?;
    let (sites, d_model) = (model.engine.info().n_layers + 1, model.engine.info().d_model);
    let mut moments = Moments::new(sites, d_model);
    let how = Generation { max_tokens: 0, residuals: true, batch: CHUNK, ..Generation::default() };
    for chunk in encoded.chunks(CHUNK) {
        cancel.check()?;
        let requests: Vec<Request> =
            chunk.iter().map(|it| Request { tokens: it.ids.clone(), edit: 0 }).collect();
        for mut answer in model.engine.generate(&requests, &how, &mut |_, _| true)? {
            ablation::winsorize(&mut answer.residuals, d_model, settings.winsorization_quantile)?;
            moments.add(&answer.residuals)?;
            if let Some(cloud) = &mut cloud {
                cloud.add(&answer.residuals);
            }
        }
        progress(chunk.len());
    }
    Ok(moments)
}

/// The directions that the settings ask for.
pub(crate) fn find(
    model: &mut Model,
    settings: &Settings,
    texts: &PromptTexts,
    events: &mut Events<'_>,
    cancel: &Cancel<'_>,
) -> Result<Directions, PipelineError> {
    let (good, bad) = (texts.of(GOOD_PROMPTS)?, texts.of(BAD_PROMPTS)?);
    let keep = settings.keep_prompts.as_ref().map(|_| texts.of(KEEP_PROMPTS)).transpose()?;
    let all = good.len() + bad.len() + keep.map_or(0, <[String]>::len);
    let mut done = 0;
    let mut progress = |more| {
        done += more;
        events(Event::Progress { stage: Stage::Residuals, done, all, tokens: 0 });
    };
    let info = model.engine.info();
    let cloud = settings.print_residual_geometry.then(|| Cloud::new(info.n_layers + 1, info.d_model));
    let (mut good_cloud, mut bad_cloud) = (cloud.clone(), cloud);
    let good = moments(model, settings, GOOD_PROMPTS, good, good_cloud.as_mut(), &mut progress, cancel)?;
    let bad = moments(model, settings, BAD_PROMPTS, bad, bad_cloud.as_mut(), &mut progress, cancel)?;
    let options = DirectionOptions { orthogonalize: settings.orthogonalize_direction };
    let mut directions = Directions::between(&bad, &good, options)?;
    if let Some(keep) = keep {
        let keep = moments(model, settings, KEEP_PROMPTS, keep, None, &mut progress, cancel)?;
        directions = directions.without(&Directions::between(&keep, &good, options)?)?;
    }
    let spread = bad_cloud.zip(good_cloud).map(|(bad, good)| SiteSpread::of(&bad, &good)).transpose()?;
    events(Event::Directions { geometry: SiteGeometry::of(&bad, &good, &directions)?, spread });
    Ok(directions)
}
